package main

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"tidegate.io/tidegate/mirror"
)

// defaultMirrorConfig is where the mirror's file is expected.
const defaultMirrorConfig = "/etc/tidegate/mirror.yaml"

func mirrorCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "mirror",
		Short: "Give a cluster images without internet",
		Long: `The mirror is a pull-through registry for several upstreams: it serves what it holds,
fetches what it lacks once for all nodes, verifies every byte, and goes on with what it has
when the upstream is gone. It can only be read.`,
		Example: `  tidegate mirror validate --config mirror.yaml
  tidegate mirror run --config mirror.yaml
  tidegate mirror preload -f images.txt --platform linux/amd64`,
	}
	cmd.PersistentFlags().StringVarP(&path, "config", "c", defaultMirrorConfig, "the mirror's `FILE`")
	cmd.AddCommand(mirrorRunCommand(&path), mirrorValidateCommand(&path), mirrorPreloadCommand(&path), mirrorForgetCommand(&path),
		mirrorExportCommand(&path), mirrorImportCommand(&path), mirrorGCCommand(&path), mirrorVerifyCommand(&path), mirrorHostsCommand())
	return cmd
}

// readMirror reads the mirror's file, and the files that it names, relative to it.
func readMirror(path string) (*mirror.Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c, err := mirror.ReadConfig(path, text)
	if err != nil {
		return nil, err
	}
	for _, file := range []*string{&c.Store, &c.Certificate, &c.Key, &c.ClientsFile} {
		if *file != "" {
			*file = beside(path, *file)
		}
	}
	for _, u := range c.Upstreams {
		if file := c.AuthorityFiles[u.Name]; file != "" {
			if u.Roots, err = readRoots(beside(path, file)); err != nil {
				return nil, fmt.Errorf("%s: upstream %s: %w", path, u.Name, err)
			}
		}
		if file := c.CredentialFiles[u.Name]; file != "" {
			file = beside(path, file)
			if _, _, err := readCredentials(file); err != nil {
				return nil, fmt.Errorf("%s: upstream %s: %w", path, u.Name, err)
			}
			u.Credentials = func() (user, password string, err error) { return readCredentials(file) }
		}
	}
	return c, nil
}

func readRoots(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: no certificate in it", file)
	}
	return pool, nil
}

// readCredentials reads USER:PASSWORD from a file that only its owner can read.
func readCredentials(file string) (user, password string, err error) {
	if err := onlyOwner(file); err != nil {
		return "", "", err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", "", err
	}
	user, password, ok := strings.Cut(string(bytes.TrimSpace(text)), ":")
	if !ok || user == "" || password == "" || strings.ContainsAny(password, "\r\n") {
		return "", "", fmt.Errorf("%s: want one line USER:PASSWORD", file)
	}
	return user, password, nil
}

// onlyOwner refuses a file of secrets that others can read. A group may: that is
// how systemd hands a credential to a service.
func onlyOwner(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o027 != 0 && os.PathSeparator == '/' {
		return fmt.Errorf("%s: others can read it (mode %o); chmod 600", file, mode)
	}
	return nil
}

// openMirror reads the file and opens the store for a command that works on it.
func openMirror(path string) (*mirror.Config, *mirror.Store, error) {
	c, err := readMirror(path)
	if err != nil {
		return nil, nil, err
	}
	s, err := mirror.OpenStore(c.Store)
	if err != nil {
		return nil, nil, undecided(err)
	}
	return c, s, nil
}

func mirrorValidateCommand(path *string) *cobra.Command {
	return &cobra.Command{
		Use:     "validate",
		Short:   "Read the mirror's file and say what it will serve",
		Example: "  tidegate mirror validate --config mirror.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := readMirror(*path)
			if err != nil {
				return err
			}
			if _, err := readMirrorClients(c, slog.New(slog.DiscardHandler)); err != nil {
				return err
			}
			rows := [][]string{{"UPSTREAM", "MODE", "AT", "ALSO CALLED", "REPOSITORIES"}}
			for _, u := range c.Upstreams {
				var allow []string
				for _, p := range u.Allow {
					allow = append(allow, p.String())
				}
				rows = append(rows, []string{u.Name, u.Mode.String(), u.URL.String(), strings.Join(append(u.Prefixes, u.Hosts...), " "), strings.Join(allow, " ")})
			}
			writeColumns(cmd.OutOrStdout(), "", rows)
			return nil
		},
	}
}

// readMirrorClients reads who may pull; nil is everybody.
func readMirrorClients(c *mirror.Config, log *slog.Logger) (func(string) bool, error) {
	if c.ClientsFile == "" {
		return nil, nil
	}
	l := &clientList{file: c.ClientsFile, log: log}
	if err := l.read(time.Now()); err != nil {
		return nil, err
	}
	return l.permits, nil
}

// clientList is the file of who may pull, read again when it changes, so that a
// secret can be replaced without a restart. A file that has become wrong changes
// nothing.
type clientList struct {
	file string
	log  *slog.Logger

	mu      sync.Mutex
	looked  time.Time // at the file
	changed time.Time // the file
	permit  func(string) bool
}

// lookAgainAfter is how long a replaced secret may still be good.
const lookAgainAfter = 2 * time.Second

func (l *clientList) read(now time.Time) error {
	l.looked = now
	if err := onlyOwner(l.file); err != nil {
		return err
	}
	info, err := os.Stat(l.file)
	if err != nil || info.ModTime().Equal(l.changed) {
		return err
	}
	text, err := os.ReadFile(l.file)
	if err != nil {
		return err
	}
	permit, err := mirror.ReadClients(l.file, text)
	if err != nil {
		return err
	}
	l.permit, l.changed = permit, info.ModTime()
	return nil
}

func (l *clientList) permits(authorization string) bool {
	l.mu.Lock()
	if now := time.Now(); now.Sub(l.looked) > lookAgainAfter {
		if err := l.read(now); err != nil {
			l.log.Warn("the list of clients is as it was", "error", err.Error())
		}
	}
	permit := l.permit
	l.mu.Unlock()
	return permit(authorization)
}
