package kernel

import (
	"net/netip"
	"time"

	"tidegate.io/tidegate/egress"
)

// Flow is one entry of conntrack: a forwarded connection, as the client sees it.
type Flow struct {
	ID       uint32 // the kernel's number for the entry, reused after its end
	Proto    egress.Proto
	Src, Dst netip.AddrPort
	Mark     Mark
	Sent     uint64 // bytes by the client, with IP headers
	Received uint64 // bytes by the server, with IP headers
	// Start and End are zero where the kernel keeps no times; End is zero while
	// the flow lives.
	Start, End time.Time
}
