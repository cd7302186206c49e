package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// closing is what Remove sets.
var closing = []Sysctl{
	{Key: "net/ipv4/ip_forward", Value: "0"},
	{Key: "net/ipv6/conf/all/forwarding", Value: "0"},
}

// applySysctls writes settings in order. One that the machine does not have, as
// without IPv6, is passed over; one that cannot be written is an error.
func applySysctls(settings []Sysctl) error {
	for _, s := range settings {
		paths, err := filepath.Glob("/proc/sys/" + s.Key)
		if err != nil {
			return fmt.Errorf("sysctl %s: %w", s.Key, err)
		}
		for _, path := range paths {
			if err := s.write(path); err != nil {
				return fmt.Errorf("sysctl: %w", err)
			}
		}
	}
	return nil
}

func (s Sysctl) write(path string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the device has gone meanwhile
	} else if err != nil {
		return err
	}
	now := strings.TrimSpace(string(b))
	if now == s.Value || s.If != "" && now != s.If {
		return nil
	}
	return os.WriteFile(path, []byte(s.Value), 0)
}
