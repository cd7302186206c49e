package egress

import (
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
}

// Cluster is a set of clients that share their DNS answers.
type Cluster struct {
	Name      string         // also the scope of its bindings
	From      []netip.Prefix // its nodes, and its pods where they keep their addresses
	APIServer Name           // the API server's FQDN; zero when it is not known
	ByAddress bool           // clients that dial the API server's address are judged as if they had named it
}
