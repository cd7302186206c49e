package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
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

// rulePriority is before the main table's 32766, and after what an administrator
// is likely to have.
const rulePriority = 29796

// applyRoutes makes the policy route of the transparent proxy, or takes it away.
func applyRoutes(want bool) error {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return fmt.Errorf("proxy route: %w", err)
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		err := applyRoute(family, lo.Index, want)
		if family == unix.AF_INET6 && errors.Is(err, unix.EAFNOSUPPORT) {
			continue // a machine without IPv6
		} else if err != nil {
			return fmt.Errorf("proxy route: %w", err)
		}
	}
	return nil
}

func applyRoute(family, lo int, want bool) error {
	rule := netlink.NewRule()
	rule.Family = family
	rule.Priority = rulePriority
	rule.Table = proxyTable
	rule.Mark = uint32(NewMark(Proxied, 0))
	mask := uint32(stateMask)
	rule.Mask = &mask

	route := &netlink.Route{
		LinkIndex: lo, Table: proxyTable, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST,
		Dst: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
	}
	if family == unix.AF_INET6 {
		route.Scope = netlink.SCOPE_UNIVERSE
		route.Dst = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	}
	if want {
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("route: %w", err)
		}
		if err := netlink.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("rule: %w", err)
		}
		return nil
	}
	if err := netlink.RuleDel(rule); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("rule: %w", err)
	}
	if err := netlink.RouteDel(route); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("route: %w", err)
	}
	return nil
}
