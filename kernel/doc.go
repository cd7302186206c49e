// Package kernel makes Linux carry out a policy: nftables for what can be
// settled at the first packet, a queue to this process for what cannot, and
// connection marks that keep every verdict in the kernel.
//
// [Plan] turns an egress.Policy into a [Ruleset], which is a plain value with a
// text form: it needs no privilege and works on any system. A [Table] applies it
// in one transaction and keeps the addresses that were learned from DNS. A
// [Queue] hands over the packets of connections that are not decided yet, a
// [Log] what was denied, a [Tracker] what runs and what has ended, and a
// [Resetter] tells both ends that a connection is over.
//
// What the rules promise: everything that no rule permits is refused and
// counted; what is marked allowed never visits the process again; when the
// process dies, marked connections go on, new ones to names wait for it, and
// nothing opens. All rules are in one table, "inet tidegate", and hold alike
// for IPv4 and IPv6. The package never starts another program, and never
// touches a rule or a route that is not its own; the marks of the machine's
// packets and connections are its own, all of them.
package kernel

import "errors"

// ErrUnsupported is returned by everything but [Plan] on systems other than Linux.
var ErrUnsupported = errors.New("the kernel's packet filter can be driven on Linux only")
