//go:build linux

package main

import (
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"tidegate.io/tidegate/bench/load"
	"tidegate.io/tidegate/wire/wiretest"
)

// A policy is what every peer is told to permit: half of the names exactly, half by a wildcard.
type policy struct {
	exact, wild []string
}

// newPolicy makes n names, n even.
func newPolicy(n int) (p policy) {
	for i := range n / 2 {
		p.exact = append(p.exact, fmt.Sprintf("host-%d.svc%d.example", i, i%97))
		p.wild = append(p.wild, fmt.Sprintf("zone-%d.cloud%d.example", i, i%89))
	}
	return p
}

// hot are the names that connections ask for: of all parts of the policy, exact ones and below wildcards.
func (p policy) hot(n int) []string {
	names := make([]string, 0, n)
	for i := range n / 2 {
		at := i * len(p.exact) / (n / 2)
		names = append(names, p.exact[at], "app."+p.wild[at])
	}
	return names
}

// addressOf is where DNS says that a name is.
func addressOf(name string, v6 bool) netip.Addr {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if rest, ok := strings.CutPrefix(name, "pool-"); ok {
		n, _, _ := strings.Cut(rest, ".")
		if i, err := strconv.Atoi(n); err == nil {
			return poolAddr(i)
		}
	}
	if rest, ok := strings.CutPrefix(name, "held-"); ok {
		n, _, _ := strings.Cut(rest, ".")
		if i, err := strconv.Atoi(n); err == nil {
			return heldAddr(i)
		}
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	if v6 {
		return serverAddrs6()[h.Sum32()%serverCount]
	}
	return serverAddrs()[h.Sum32()%serverCount]
}

// ttlOf is for how many seconds a name has its address: for longer than any run, but where it is asked for once.
func ttlOf(name string) uint32 {
	if strings.HasPrefix(strings.ToLower(name), onceName) { // a resolver may ask in any spelling
		return 1
	}
	return 3600
}

// helloOf is a ClientHello for name with size bytes on the wire, record header included, and those of a post-quantum key
// share from 1,500 on; size 0 is the shortest.
func helloOf(name string, size int) []byte {
	h := wiretest.Client(name)
	if size >= 1500 {
		h = wiretest.PostQuantum(name)
	}
	return h.PadTo(size - 5).Bytes()
}

func targets(names []string, size int) []load.Target { return targetsOf(names, size, false) }

func targetsOf(names []string, size int, v6 bool) []load.Target {
	out := make([]load.Target, len(names))
	for i, n := range names {
		out[i] = load.Target{To: netip.AddrPortFrom(addressOf(n, v6), 443), Hello: helloOf(n, size)}
	}
	return out
}

// serverHello is the beginning of a TLS 1.3 server's flight: a ServerHello that is no HelloRetryRequest.
func serverHello() []byte {
	random := strings.Repeat("5a", 32)
	session := strings.Repeat("5e", 32)
	body := "0303" + random + "20" + session + "1301" + "00" + "002e" + "002b00020304" + "00330024001d0020" + strings.Repeat("11", 32)
	b, err := hex.DecodeString(body)
	if err != nil {
		panic(err) // it is a constant
	}
	message := append([]byte{2, 0, byte(len(b) >> 8), byte(len(b))}, b...)
	return append(wiretest.Record(22, 0x0303, message), wiretest.Record(20, 0x0303, []byte{1})...)
}

func writeLines(dir, name string, lines []string) (string, error) {
	path := filepath.Join(dir, name)
	return path, os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o644)
}
