package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"tidegate.io/tidegate/mirror"
)

func mirrorGCCommand(path *string) *cobra.Command {
	var dry bool
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Bring the store down to its size limit",
		Long: `Gc takes the least recently used blobs until the store is within the size of its file, as
the running mirror does by itself when it needs room. It takes nothing that is kept, in use
or younger than an hour, and may run beside the mirror.`,
		Example: "  tidegate mirror gc --dry-run",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withMirror(cmd, *path, func(_ context.Context, m *mirror.Mirror) error {
				limit := m.MaxBytes
				if limit == 0 {
					return errors.New("the mirror's file has no size: there is nothing to bring the store down to")
				}
				c, err := m.Store.Collect(limit, dry)
				if err != nil {
					return undecided(err)
				}
				taken := "taken"
				if dry {
					taken = "would be taken"
				}
				out := cmd.OutOrStdout()
				for _, d := range c.Taken {
					fmt.Fprintln(out, d)
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "%s used, limit %s; %d blobs and %d abandoned transfers %s, %s left; %d blobs are kept\n",
					bytesText(c.Before), bytesText(limit), len(c.Taken), c.Abandoned, taken, bytesText(c.After), c.Kept)
				if c.After > limit {
					return answerNo()
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only print the digests that would be taken")
	return cmd
}

func mirrorVerifyCommand(path *string) *cobra.Command {
	var remove bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Hash everything in the store anew",
		Long: `Verify reads every blob of the store and prints those that are not what they are called:
a disk can rot. It may run beside the mirror. Exit status 1 when there is one.`,
		Example: "  tidegate mirror verify --remove",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withMirror(cmd, *path, func(ctx context.Context, m *mirror.Mirror) error {
				v, err := m.Store.Verify(ctx, remove)
				if err != nil {
					return undecided(err)
				}
				for _, d := range v.Damaged {
					fmt.Fprintln(cmd.OutOrStdout(), d)
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "%d blobs, %s, %d damaged\n", v.Blobs, bytesText(v.Bytes), len(v.Damaged))
				if len(v.Damaged) > 0 {
					return answerNo()
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&remove, "remove", false, "remove damaged blobs, so that they are fetched again")
	return cmd
}

// defaultCerts is where containerd of AKS nodes looks for hosts.toml.
const defaultCerts = "/etc/containerd/certs.d"

func mirrorHostsCommand() *cobra.Command {
	var (
		h                    mirror.Hosts
		at, dir, secret      string
		registries           []string
		write, undo, without bool
	)
	cmd := &cobra.Command{
		Use:   "hosts-toml",
		Short: "Point a node's containerd at the mirror",
		Long: `Hosts-toml prints containerd's hosts.toml for registries behind a mirror; --write puts it
where containerd reads it, without a restart, and moves what is there beside it; --undo puts
that back. Without --only containerd goes to the registry itself where the mirror has none.`,
		Example: `  tidegate mirror hosts-toml --mirror https://mirror.example:5000 --registry mcr.microsoft.com --write`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if write && undo {
				return errors.New("either --write or --undo")
			}
			if len(registries) == 0 {
				return errors.New("which registries? give --registry")
			}
			if !undo {
				u, err := url.Parse(at)
				if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.User != nil {
					return fmt.Errorf("--mirror %q: want https://host:port", at)
				}
				h.Mirror, h.Only = u, without
				if h.Authorization, err = readAuthorization(secret); err != nil {
					return err
				}
			}
			for _, r := range registries {
				h.Registry = r
				if err := mirrorHosts(cmd, h, dir, write, undo); err != nil {
					return err
				}
			}
			return nil
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&at, "mirror", "", "the mirror's `URL`")
	fs.StringSliceVar(&registries, "registry", nil, "`REGISTRIES` that it mirrors, as images are called after them")
	fs.StringVar(&h.Prefix, "prefix", "", "a `PATH` of the mirror that leads to them, as AKS has it; without, containerd says which by ?ns=")
	fs.StringVar(&h.CA, "ca", "", "the `FILE` on the node with the authority of the mirror's certificate")
	fs.StringVar(&secret, "authorization", "", "a `FILE` with what the mirror wants of clients: basic USER:PASSWORD or bearer TOKEN")
	fs.BoolVar(&without, "only", false, "never go to the registry itself")
	fs.BoolVar(&write, "write", false, "write the file, and move what is there beside it")
	fs.BoolVar(&undo, "undo", false, "put back what was there")
	fs.StringVar(&dir, "dir", defaultCerts, "containerd's config_path")
	return cmd
}

func mirrorHosts(cmd *cobra.Command, h mirror.Hosts, dir string, write, undo bool) error {
	switch {
	case undo:
		if err := h.Undo(dir); err != nil {
			return undecided(err)
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: put back\n", h.Registry)
	case write:
		if err := h.Write(dir); err != nil {
			return undecided(err)
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: written\n", h.Registry)
	default:
		if err := h.Check(); err != nil {
			return err
		}
		fmt.Fprint(cmd.OutOrStdout(), h.Text())
	}
	return nil
}

// readAuthorization reads a line of the mirror's clients' file as a header's value.
func readAuthorization(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	if err := onlyOwner(file); err != nil {
		return "", err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	return mirror.Authorization(file, text)
}
