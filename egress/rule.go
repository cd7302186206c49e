package egress

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Need says how much a cluster needs a rule. The zero Need is Required, so that
// what forgets to say is not dropped.
type Need uint8

// The degrees of need.
const (
	Required Need = iota
	Recommended
	Optional
)

var needNames = [...]string{"required", "recommended", "optional"}

// ParseNeed reads "required", "recommended" or "optional".
func ParseNeed(s string) (Need, error) {
	for i, n := range needNames {
		if n == s {
			return Need(i), nil
		}
	}
	return 0, fmt.Errorf("need %q: want required, recommended or optional", clip(s))
}

// String returns the word.
func (n Need) String() string { return needNames[n] }

// MarshalText is String.
func (n Need) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText is ParseNeed.
func (n *Need) UnmarshalText(b []byte) (err error) {
	*n, err = ParseNeed(string(b))
	return err
}

// Rule permits the clients in From to reach every endpoint in To, for one
// reason: it is one row of the documentation that it came from.
type Rule struct {
	ID     string         // unique in a policy, such as core/mcr or payments/stripe
	Need   Need           // what happens to the cluster without it
	From   []netip.Prefix // the clients; empty is every client
	To     []Endpoint
	Why    string // one sentence for people
	Source string // where it is written

	content [16]byte // once compiled, see Content
}

// Content is a hash of what the rule decides: its id, clients and destinations, each
// in any order. Two rules with the same are the same rule.
func (r *Rule) Content() [16]byte {
	if r.content != [16]byte{} {
		return r.content
	}
	return contentOf(r)
}

// contentOf adds the hashes of the parts, for a sum is the same in any order and needs
// no sorting. Whoever could make two sums alike writes the rules anyway.
func contentOf(r *Rule) [16]byte {
	var sum [4]uint64
	text := make([]byte, 0, 2*maxName)
	add := func(part []byte) {
		h := sha256.Sum256(part)
		for i := range sum {
			sum[i] += binary.BigEndian.Uint64(h[8*i:])
		}
	}
	for _, p := range r.From {
		add(p.AppendTo(text))
	}
	for _, e := range r.To {
		add(e.append(text))
	}
	whole := append(text, r.ID...)
	for _, n := range sum {
		whole = binary.BigEndian.AppendUint64(whole, n)
	}
	h := sha256.Sum256(whole)
	return [16]byte(h[:])
}

// Cluster is a set of clients that share their DNS answers.
type Cluster struct {
	Name      string         // also the scope of its bindings
	From      []netip.Prefix // its nodes, and its pods where they keep their addresses
	APIServer Name           // the API server's FQDN; zero when it is not known
	ByAddress bool           // clients that dial the API server's address are judged as if they had named it
}
