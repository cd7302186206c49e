// Package wire turns bytes that strangers sent into values: an IP packet, a TLS
// ClientHello, what a server answered to it, the head and the body of an HTTP/1
// request.
//
// It promises to be strict where leniency is an attack. A filter is passed when it
// reads other words than the server behind it, so what two honest servers could
// read in two ways is refused here with a [Fault], a word that can be counted and
// logged. It also promises that a verdict depends on the bytes alone, not on how
// they were cut into segments; that each reader has a bound, a named constant; and
// that reading packets and answers allocates nothing, and reading a hello nothing
// but the name in it.
//
// Readers of a stream take the whole contiguous prefix seen so far and answer with
// the value, with [ErrMore], or with a Fault as early as the bytes allow: what cannot
// become a ClientHello is refused at its first byte.
//
// It never opens, dials or times anything, never decides what is allowed, and never
// judges a name: names come out as they were sent, and egress.ParseName says whether
// they are names at all.
//
// Where to look: packet.go and append.go for packets; record.go, hello.go and
// answer.go for TLS; request.go, authority.go and body.go for HTTP. Builders of
// ClientHellos, good and evil, for the tests of other packages are in wiretest.
package wire
