//go:build linux

// Bench measures the gateway beside plain forwarding and beside what else people put there: CPU time of everything
// together, a connection, a packet, a question, in interleaved rounds with paired ratios and their intervals.
//
// It promises that every peer is given the same policy, that a round in which the machine did much else is not counted,
// and that what must not happen (a failed connection, a lost packet) is counted after each run. It needs root, it changes
// nothing outside of namespaces and a control group of its own, and it takes away what it made. It is no part of the product.
package main
