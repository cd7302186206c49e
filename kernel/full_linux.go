package kernel

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Entries says how many connections conntrack has in the namespace of the calling thread,
// and how many it has room for: for all namespaces of the machine together, each counts by
// itself.
func Entries() (now, most uint64, err error) {
	for _, x := range []struct {
		file string
		to   *uint64
	}{{"nf_conntrack_count", &now}, {"nf_conntrack_max", &most}} {
		text, err := os.ReadFile("/proc/sys/net/netfilter/" + x.file)
		if err != nil {
			return 0, 0, fmt.Errorf("conntrack: %w", err)
		}
		if *x.to, err = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err != nil {
			return 0, 0, fmt.Errorf("conntrack: %s: %w", x.file, err)
		}
	}
	return now, most, nil
}
