// Package lab builds a small Azure on one machine: two nodes, the virtual network between them, a gateway, and an
// internet with every server that a node could want and several that it must not reach.
//
//	node1 ─┐
//	       ├─ vnet ── gateway ── edge ── internet
//	node2 ─┘
//
// Each box is an unnamed network namespace that this process owns, so when the process ends, however it ends, nothing
// stays behind. The servers run in this process; the gateway and whatever [Node.Start] starts are its children.
// With no gateway configured the gateway's box only forwards and masquerades. That is the control: a connection counts
// as stopped by the gateway only where the same connection, made the same way, reaches its server without it.
//
// The lab promises that what the servers say they saw ([Seen]) is what arrived at them, byte for byte. It never touches
// the network of the machine it runs on, and sends nothing to it.
package lab
