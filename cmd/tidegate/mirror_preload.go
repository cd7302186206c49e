package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tidegate.io/tidegate/mirror"
)

// maxImages bounds a list of images; a cluster runs some hundreds.
const maxImages = 10_000

// imageFlags name images: as arguments, or in a file with one a line.
type imageFlags struct{ file string }

func (f *imageFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.file, "file", "f", "", "a `FILE` with an image a line; - is stdin, # begins a comment")
}

func (f *imageFlags) read(cmd *cobra.Command, args []string) ([]mirror.Reference, error) {
	images, err := parseImages(args)
	if err != nil || f.file == "" {
		return images, err
	}
	more, err := readFile(f.file, cmd.InOrStdin(), readImages)
	return append(images, more...), err
}

// some is read where no images would be nothing to do.
func (f *imageFlags) some(cmd *cobra.Command, args []string) ([]mirror.Reference, error) {
	images, err := f.read(cmd, args)
	if err == nil && len(images) == 0 {
		err = errors.New("which images? name them, or a file with -f")
	}
	return images, err
}

func readImages(r io.Reader) ([]mirror.Reference, error) {
	var lines []string
	s := bufio.NewScanner(r)
	for s.Scan() {
		line, _, _ := strings.Cut(s.Text(), "#")
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
		if len(lines) > maxImages {
			return nil, fmt.Errorf("more than %d images", maxImages)
		}
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	return parseImages(lines)
}

func parseImages(texts []string) ([]mirror.Reference, error) {
	var images []mirror.Reference
	for _, t := range texts {
		r, err := mirror.ParseReference(t)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(images, r) {
			images = append(images, r)
		}
	}
	return images, nil
}

// withMirror runs a command on the store of a mirror that may be running.
func withMirror(cmd *cobra.Command, path string, do func(ctx context.Context, m *mirror.Mirror) error) error {
	c, s, err := openMirror(path)
	if err != nil {
		return err
	}
	defer s.Close()
	log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	m := &mirror.Mirror{Store: s, Upstreams: c.Upstreams, MaxBytes: c.MaxBytes, MaxBlob: c.MaxBlob, Log: log}
	defer m.Close()
	return do(cmd.Context(), m)
}

func mirrorPreloadCommand(path *string) *cobra.Command {
	var (
		images    imageFlags
		platforms []string
		what      = mirror.Preload{Keep: true, Referrers: true}
		drop      bool
	)
	cmd := &cobra.Command{
		Use:   "preload [IMAGE…]",
		Short: "Fetch images before they are asked for, and keep them",
		Long: `Preload fetches images with all that belongs to them, signatures too, into the mirror's
store, while the mirror is running or not. They are kept whatever the size limit, until
forget. Exit status 1 when one could not be fetched.`,
		Example: "  tidegate mirror preload -f images.txt --platform linux/amd64 --platform linux/arm64",
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := images.some(cmd, args)
			if err != nil {
				return err
			}
			for _, p := range platforms {
				platform, err := mirror.ParsePlatform(p)
				if err != nil {
					return err
				}
				what.Platforms = append(what.Platforms, platform)
			}
			what.Keep = !drop
			return withMirror(cmd, *path, func(ctx context.Context, m *mirror.Mirror) error {
				return preload(ctx, cmd.OutOrStdout(), m, list, what)
			})
		},
	}
	images.add(cmd)
	cmd.Flags().StringArrayVar(&platforms, "platform", nil, "of each index only this `PLATFORM`: os/architecture[/variant][:os.version]; may be given again")
	cmd.Flags().BoolVar(&what.Referrers, "referrers", true, "signatures and other artefacts that refer to them, too")
	cmd.Flags().BoolVar(&drop, "no-keep", false, "let them be collected as others are")
	return cmd
}

func preload(ctx context.Context, out io.Writer, m *mirror.Mirror, list []mirror.Reference, what mirror.Preload) error {
	failed := 0
	for _, r := range list {
		n, err := m.Pull(ctx, r, what)
		if ctx.Err() != nil {
			return undecided(ctx.Err())
		}
		if err != nil {
			failed++
			fmt.Fprintf(out, "failed  %s: %v\n", r, err)
			continue
		}
		fmt.Fprintf(out, "ok      %s  %s\n", r, bytesText(n))
	}
	if failed > 0 {
		fmt.Fprintf(out, "%d of %d images are lacking\n", failed, len(list))
		return answerNo()
	}
	return nil
}

// bytesText is a size for people.
func bytesText(n int64) string {
	const units = "kMGT"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/1000, 0
	for v >= 1000 && unit < len(units)-1 {
		v, unit = v/1000, unit+1
	}
	return fmt.Sprintf("%.1f %cB", v, units[unit])
}

func mirrorForgetCommand(path *string) *cobra.Command {
	var images imageFlags
	cmd := &cobra.Command{
		Use:     "forget [IMAGE…]",
		Short:   "Let preloaded images be collected again",
		Example: "  tidegate mirror forget mcr.microsoft.com/oss/kubernetes/pause:3.5",
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := images.some(cmd, args)
			if err != nil {
				return err
			}
			return withMirror(cmd, *path, func(ctx context.Context, m *mirror.Mirror) error {
				failed := false
				for _, r := range list {
					if err := m.Forget(ctx, r); err != nil {
						failed = true
						fmt.Fprintf(cmd.OutOrStdout(), "failed     %s: %v\n", r, err)
						continue
					}
					fmt.Fprintf(cmd.OutOrStdout(), "forgotten  %s\n", r)
				}
				if failed {
					return answerNo()
				}
				return nil
			})
		},
	}
	images.add(cmd)
	return cmd
}

func mirrorExportCommand(path *string) *cobra.Command {
	var images imageFlags
	var to string
	cmd := &cobra.Command{
		Use:   "export [IMAGE…]",
		Short: "Write images into an archive, for a network without any connection",
		Long: `Export writes images of the store, by default all that have a tag, as an OCI image layout
in a tar archive, which import reads on the other side, and skopeo, oras, crane and ctr too.`,
		Example: "  tidegate mirror export -f images.txt --to images.tar",
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := images.read(cmd, args)
			if err != nil {
				return err
			}
			return withMirror(cmd, *path, func(ctx context.Context, m *mirror.Mirror) error {
				if len(list) == 0 {
					if list, err = m.Known(); err != nil {
						return undecided(err)
					}
				}
				if len(list) == 0 {
					return &exitError{exitNo, errors.New("the store has no images")}
				}
				if err := writeArchive(ctx, cmd.OutOrStdout(), m, list, to); err != nil {
					return &exitError{exitNo, err}
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "exported %d images\n", len(list))
				return nil
			})
		},
	}
	images.add(cmd)
	cmd.Flags().StringVar(&to, "to", "-", "the `FILE` to write; - is stdout")
	return cmd
}

// writeArchive leaves no half of a file.
func writeArchive(ctx context.Context, stdout io.Writer, m *mirror.Mirror, list []mirror.Reference, to string) error {
	if to == "-" {
		if isTerminal(stdout) {
			return errors.New("an archive is nothing for a terminal; give --to FILE")
		}
		return m.Export(ctx, stdout, list)
	}
	f, err := os.OpenFile(to+".part", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	err = m.Export(ctx, f, list)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		return os.Rename(f.Name(), to)
	}
	return errors.Join(err, os.Remove(f.Name()))
}

func mirrorImportCommand(path *string) *cobra.Command {
	var drop bool
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Take images from an archive",
		Long: `Import verifies and takes an OCI image layout in a tar archive, - for stdin: what export
wrote, or skopeo and others with full names. Its images are kept as preloaded ones are.
Exit status 1 when one of them cannot be served: it is not whole, or not on the list.`,
		Example: "  tidegate mirror import images.tar",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withMirror(cmd, *path, func(ctx context.Context, m *mirror.Mirror) error {
				all, err := readFile(args[0], cmd.InOrStdin(), func(r io.Reader) ([]mirror.Imported, error) { return m.Import(ctx, r, !drop) })
				if err != nil {
					return &exitError{exitNo, err}
				}
				failed := 0
				for _, i := range all {
					if i.Err != nil {
						failed++
						fmt.Fprintf(cmd.OutOrStdout(), "refused  %s: %v\n", i.Image, i.Err)
						continue
					}
					fmt.Fprintf(cmd.OutOrStdout(), "ok       %s\n", i.Image)
				}
				if failed > 0 {
					return answerNo()
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&drop, "no-keep", false, "let them be collected as others are")
	return cmd
}
