package kernel

import "tidegate.io/tidegate/egress"

// Denial is one packet that the rules refused, or would have refused where a
// cluster is only observed. The rules report a bounded number of them for each
// source; Table.Counters has how many there were.
type Denial struct {
	Reason   egress.Reason
	Observed bool   // it was let through
	Payload  []byte // the packet's first bytes, from the IP header on; only valid during the call
}

// logCopy is what is logged of a packet: IPv6 with extension headers, and TCP
// with all its options.
const logCopy = 128
