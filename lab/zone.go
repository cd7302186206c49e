//go:build linux

package lab

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// The public-looking ranges that names resolve to. They exist only inside the lab's namespaces.
var (
	publicV4  = netip.MustParsePrefix("20.0.0.0/9")
	publicV6  = netip.MustParsePrefix("2603:1000::/24")
	privateV4 = netip.MustParsePrefix("10.225.0.0/16")
)

// evilSuffix is the attacker's own zone. Everything in it resolves, and nothing in it is ever permitted.
const evilSuffix = "evil.example"

// A Zone is the whole of the lab's DNS: it answers every name, always in the same way, without having been told of it.
// Names are lower case and have no trailing dot. A Zone may be used by any number of goroutines.
type Zone struct {
	// Private lists names and their children that have an address in the virtual network, as a private endpoint has.
	// Names with a "privatelink" or "private" label need not be listed.
	Private []string

	turn  atomic.Uint32 // which part of a rotating name's pool comes next
	moved sync.Map      // name to []netip.Addr: those that Move gave it
}

// Move gives name other addresses from now on, IPv4 first, as maintenance does with an API server.
func (z *Zone) Move(name string, addrs ...netip.Addr) { z.moved.Store(name, addrs) }

// aliases are the CNAME chains that the real names are known to have, or have the shape of. A gateway that binds the
// end of the chain instead of the name that was asked for fails on every one.
var aliases = map[string]string{
	"mcr.microsoft.com":                "mcr-0001.mcr-msedge.net",
	"packages.aks.azure.com":           "aks-packages.azurefd.net",
	"aks-packages.azurefd.net":         "shed.dual-low.part-0017.t-0009.t-msedge.net",
	"login.microsoftonline.com":        "login.mso.msidentity.com",
	"login.mso.msidentity.com":         "ak.privatelink.msidentity.com",
	"ak.privatelink.msidentity.com":    "www.tm.ak.prd.aadg.trafficmanager.net",
	"management.azure.com":             "management.privatelink.azure.com",
	"management.privatelink.azure.com": "arm-frontdoor-prod.trafficmanager.net",
	"go.microsoft.com":                 "go.microsoft.com.edgekey.net",
	"us.download.nvidia.com":           "us.download.nvidia.com.edgesuite.net",
	"acs-mirror.azureedge.net":         "acs-mirror.afd.azureedge.net",
	"onegetcdn.azureedge.net":          "onegetcdn.afd.azureedge.net",
}

// rotating names answer with a few of many addresses, other ones each time, as large services do: how many they have.
var rotating = map[string]int{
	"security.ubuntu.com": 8, "azure.archive.ubuntu.com": 8, "ntp.ubuntu.com": 8,
	"www.tm.ak.prd.aadg.trafficmanager.net": 8, "packages.microsoft.com": 8, "dc.services.visualstudio.com": 8,
	manyAddresses: 1000,
}

// rotatingAnswer is how many of a rotating name's addresses one answer holds.
const rotatingAnswer = 3

// manyKept is how many addresses a name may have for its answers to be kept for some seconds.
const manyKept = 100

// Alias returns the name that name is an alias of, or "".
func (z *Zone) Alias(name string) string {
	if to, ok := aliases[name]; ok {
		return to
	}
	h := sha256.Sum256([]byte(name))
	shard := string("abcdefgh"[h[0]%8]) + string("0123456789"[h[1]%10])
	label, rest, _ := strings.Cut(name, ".")
	switch rest {
	case "blob.core.windows.net":
		return label + ".prdstr" + shard + ".store.core.windows.net"
	case "vault.azure.net":
		return label + ".data-prod-" + shard + ".vaultcore.azure.net"
	}
	return ""
}

// Chain returns name and every alias on the way to the name that has the addresses, which is the last.
func (z *Zone) Chain(name string) []string {
	chain := []string{name}
	for to := z.Alias(name); to != "" && !slices.Contains(chain, to); to = z.Alias(to) {
		chain = append(chain, to)
	}
	return chain
}

// Exists reports whether name is in the DNS of the lab. Everything is, except what RFC 6761 says is not and the search
// list noise of Kubernetes.
func (z *Zone) Exists(name string) bool {
	for _, suffix := range []string{"invalid", "local", "localhost", "onion"} {
		if name == suffix || strings.HasSuffix(name, "."+suffix) {
			return false
		}
	}
	return name != ""
}

// Addrs returns every address that name has: IPv4 first, nil if there is no such name.
//
// Three shapes of names are under the attacker's control. "a-10-0-0-1.<anything>" has the address 10.0.0.1, and
// "h-<32 hex digits>.<anything>" an IPv6 one (a zone may hold any address, also somebody else's). "on.<name>.evil.example" has the addresses of <name>, as two sites behind one
// CDN do. Every other name in evil.example has an address of its own.
func (z *Zone) Addrs(name string) []netip.Addr {
	if !z.Exists(name) {
		return nil
	}
	if addrs, ok := z.moved.Load(name); ok {
		return slices.Clone(addrs.([]netip.Addr))
	}
	if label, _, _ := strings.Cut(name, "."); strings.HasPrefix(label, "a-") {
		if a, err := netip.ParseAddr(strings.ReplaceAll(label[2:], "-", ".")); err == nil {
			return []netip.Addr{a}
		}
	}
	if label, _, _ := strings.Cut(name, "."); strings.HasPrefix(label, "h-") {
		if raw, err := hex.DecodeString(label[2:]); err == nil && len(raw) == 16 {
			return []netip.Addr{netip.AddrFrom16([16]byte(raw))}
		}
	}
	if inner, ok := strings.CutPrefix(name, "on."); ok {
		if inner, ok = strings.CutSuffix(inner, "."+evilSuffix); ok {
			return z.Addrs(inner)
		}
	}
	if z.private(name) {
		return []netip.Addr{hashAddr(privateV4, name, 0)}
	}
	chain := z.Chain(name)
	owner := chain[len(chain)-1]
	n := max(1, rotating[owner])
	addrs := make([]netip.Addr, 0, 2*n)
	for _, p := range []netip.Prefix{publicV4, publicV6} {
		for i := range n {
			addrs = append(addrs, hashAddr(p, owner, i))
		}
	}
	return addrs
}

// Answer returns the addresses of one family for one answer, and the seconds they are good for. Rotating names give
// different ones each time.
func (z *Zone) Answer(name string, v6 bool) ([]netip.Addr, uint32) {
	all := slices.DeleteFunc(z.Addrs(name), func(a netip.Addr) bool { return a.Is6() != v6 })
	if len(all) <= rotatingAnswer {
		if isAPIServer(name) {
			return all, 30
		}
		return all, 300
	}
	ttl := uint32(5)
	if len(all) > manyKept { // nobody keeps it: each answer is another part
		ttl = 0
	}
	start := int(z.turn.Add(1)) * rotatingAnswer % len(all)
	some := make([]netip.Addr, rotatingAnswer)
	for i := range some {
		some[i] = all[(start+i)%len(all)]
	}
	return some, ttl
}

// isAPIServer reports whether name is one that AKS gives to API servers, whose answers are good for seconds only.
func isAPIServer(name string) bool {
	return strings.Contains(name, ".hcp.") && strings.HasSuffix(name, ".azmk8s.io")
}

func (z *Zone) private(name string) bool {
	if _, ok := aliases[name]; ok {
		return false
	}
	for _, label := range strings.Split(name, ".") {
		if label == "privatelink" || label == "private" {
			return true
		}
	}
	return slices.ContainsFunc(z.Private, func(p string) bool { return name == p || strings.HasSuffix(name, "."+p) })
}

// hashAddr is the nth address of name within p: the same in every run, and with no table, so that a name asked for a
// million times costs nothing. The last byte is never 0 or 255.
func hashAddr(p netip.Prefix, name string, n int) netip.Addr {
	key := append([]byte(name), 0, byte(n))
	for n >>= 8; n > 0; n >>= 8 {
		key = append(key, byte(n))
	}
	h := sha256.Sum256(key)
	raw := p.Addr().AsSlice()
	bits := p.Bits()
	for i := range raw {
		keep := max(0, min(8, bits-8*i))
		mask := byte(0xff) >> keep
		raw[i] = raw[i]&^mask | h[i]&mask
	}
	last := len(raw) - 1
	raw[last] = 1 + raw[last]%254
	a, _ := netip.AddrFromSlice(raw)
	return a
}
