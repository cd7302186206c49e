package kernel

import "net/netip"

// Settings is what [Plan] needs to know beside the policy.
type Settings struct {
	// Clusters has one entry for each cluster of the policy, in any order.
	Clusters []Cluster

	// Number gives a rule's number for its marks, from 1 to [MaxRule]. Marks
	// outlive the process, so a number must not be given to another rule
	// while a connection may still carry it.
	Number func(rule string) uint32

	// Ports on the gateway itself; 0 is "not there".
	DNS         uint16 // takes every client's port 53, UDP and TCP; without it clients reach no resolver outside
	Asked       uint16 // takes what clients ask the gateway itself by UDP, past conntrack; its answers leave from port 53
	Transparent uint16 // the HTTP proxy's transparent socket; without it ports of HTTP rules are refused
	Explicit    uint16 // the HTTP proxy that clients are configured for

	// Management is what clients never reach; the zero value is none.
	Management netip.AddrPort

	Queue   uint16 // number of the first queue for connections that are not decided
	Queues  uint16 // how many there are, a connection always staying in one; 0 counts as 1
	Observe uint16 // number of the queue for clusters that are only observed
	Log     uint16 // NFLOG group for denied packets

	// Masquerade gives forwarded connections the gateway's address.
	Masquerade bool

	// Features is what this kernel can do, see Probe.
	Features Features
}

// Cluster is what the kernel has to know of a cluster beside its clients, which
// are in the policy.
type Cluster struct {
	Name     string         // as in the policy
	Internal []netip.Prefix // never ours: passes untouched, in both directions
	Observe  bool           // nothing of it is refused or held, all is logged
}

// Features says what a kernel can do where kernels differ. The zero value is the
// least that is enough.
type Features struct {
	NativeQueue bool // the nft queue statement; else the NFQUEUE target of xtables
	StripOption bool // removing a TCP option; else its SYN is dropped on the ports of HTTPS rules
	InnerHeader bool // seeing that a SYN carries data; else only the process sees it
}
