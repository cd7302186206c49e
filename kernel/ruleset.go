package kernel

import (
	"net/netip"
	"time"

	"tidegate.io/tidegate/egress"
)

// Ruleset is everything that the kernel has to hold for a policy: the content of
// the table "inet tidegate", the gate, and settings.
// It is a value: the same policy and settings give the same text.
type Ruleset struct {
	Counters []string // named counters, one for each reason that the rules can give
	Sets     []Set
	Chains   []Chain
	// Gate are the clients whose packets are not forwarded when the rules have not seen
	// them, because there are none any more: a policy rule sees to it, where others can
	// remove the table.
	Gate    []netip.Prefix
	Sysctls []Sysctl

	learned learnedNames
}

// Chain is a list of rules. Hook is nil for a chain that others jump to.
type Chain struct {
	Name  string
	Hook  *Hook
	Rules []Rule
}

// Hook is where the kernel enters a chain.
type Hook struct {
	Type     string // filter or nat
	Name     string // prerouting, input, forward, output, postrouting
	Priority int
	Drop     bool // the policy: what no rule decides is dropped
}

// Rule is a list of statements, which are carried out until one does not match.
type Rule []Statement

// SetKind is what the elements of a [Set] lead to.
type SetKind uint8

// The kinds of sets.
const (
	Members SetKind = iota // nothing: an element is in or not
	Marks                  // the connection's mark
	Chains                 // the chain that is gone to
	Rates                  // a limit for each source, filled by the kernel itself
)

// Set is a named set or map of addresses, ports or ranges of them.
type Set struct {
	Name    string
	Key     KeyType
	Kind    SetKind
	Learned bool    // filled by Table.Open; elements have timeouts
	Ranges  []Range // sorted, no two overlap; empty for Learned and Rates
}

// KeyType is what a [Set] is looked up by.
type KeyType uint8

// The key types.
const (
	V4 KeyType = iota
	V6
	PortKey
)

// Range is a range of a [Set], both ends included, and what it leads to.
type Range struct {
	First, Last netip.Addr // of addresses
	Ports       egress.Ports
	Mark        Mark
	Chain       string
}

// Element is one learned address: connections to it get the mark.
type Element struct {
	Set     string
	Addr    netip.Addr
	Mark    Mark
	Timeout time.Duration // from now on; read back it is what is left
}

// Sysctl is a kernel setting: a path below /proc/sys, in which * stands for every
// network device.
type Sysctl struct {
	Key, Value string
	If         string // only where it has this value now; empty is always
	Why        string
}
