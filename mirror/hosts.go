package mirror

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// Hosts is what containerd is told of a registry: the file hosts.toml in the
// folder of its name, below config_path (containerd's docs/hosts.md).
type Hosts struct {
	Registry string   // mcr.microsoft.com
	Mirror   *url.URL // https://mirror.example:5000
	Prefix   string   // of the mirror's paths, as AKS has it; empty for ?ns=

	// Only keeps containerd from going to the registry itself where the mirror
	// has no answer.
	Only bool

	CA            string // a file on the node; empty is the system's authorities
	Authorization string // a header's value; empty is none
}

// Check refuses a name that is no registry's, and a prefix that is no path's.
func (h Hosts) Check() error {
	if h.Prefix != "" {
		if err := checkRepository(h.Prefix); err != nil {
			return fmt.Errorf("prefix: %w", err)
		}
	}
	return checkHost(h.Registry)
}

// hostsMark is the first line of a file that may be written over and removed.
const hostsMark = "# Written by tidegate mirror hosts-toml; what was here before is in hosts.toml" + hostsBefore + "."

const hostsBefore = ".before-tidegate"

// Text is the file.
func (h Hosts) Text() string {
	var b strings.Builder
	at := strings.TrimSuffix(h.Mirror.String(), "/")
	if h.Prefix != "" {
		at += "/v2/" + h.Prefix
	}
	fmt.Fprintln(&b, hostsMark)
	if h.Only {
		fmt.Fprintf(&b, "server = %s\n\n", tomlString(at))
	}
	fmt.Fprintf(&b, "[host.%s]\n  capabilities = [\"pull\", \"resolve\"]\n", tomlString(at))
	if h.Prefix != "" {
		fmt.Fprintln(&b, "  override_path = true")
	}
	if h.CA != "" {
		fmt.Fprintf(&b, "  ca = %s\n", tomlString(h.CA))
	}
	if h.Authorization != "" {
		fmt.Fprintf(&b, "  [host.%s.header]\n    Authorization = %s\n", tomlString(at), tomlString(h.Authorization))
	}
	return b.String()
}

// tomlString quotes a string: a basic string of TOML 1.0.
func tomlString(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	return `"` + b.String() + `"`
}

// folder is where the file belongs. The registry's name has been checked: it is no path.
func (h Hosts) folder(dir string) (string, error) {
	if err := h.Check(); err != nil {
		return "", err
	}
	return filepath.Join(dir, h.Registry), nil
}

// Write puts the file below dir. Another's file there, such as AKS's own, is
// moved beside it first, for Undo; a second Write does not lose it.
func (h Hosts) Write(dir string) error {
	folder, err := h.folder(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	name := filepath.Join(folder, "hosts.toml")
	have, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && !strings.HasPrefix(string(have), hostsMark) {
		if err := os.Rename(name, name+hostsBefore); err != nil {
			return err
		}
	}
	mode := os.FileMode(0o644)
	if h.Authorization != "" {
		mode = 0o600
	}
	temporary := name + ".new"
	if err := os.WriteFile(temporary, []byte(h.Text()), mode); err != nil {
		return err
	}
	return os.Rename(temporary, name)
}

// Undo puts back what Write found. Another's file stays.
func (h Hosts) Undo(dir string) error {
	folder, err := h.folder(dir)
	if err != nil {
		return err
	}
	name := filepath.Join(folder, "hosts.toml")
	have, err := os.ReadFile(name)
	if err == nil && !strings.HasPrefix(string(have), hostsMark) {
		return fmt.Errorf("%s: was not written by tidegate", name)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	missing := err != nil
	err = os.Rename(name+hostsBefore, name)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if missing {
		return fmt.Errorf("%s: there is none", name)
	}
	if err := os.Remove(name); err != nil {
		return err
	}
	// A folder that holds nothing more goes too; one with certificates in it stays.
	_ = os.Remove(folder)
	return nil
}
