//go:build linux

// Package load makes and answers the traffic of measurements: canned ClientHellos, requests and datagrams on one side, a
// stub that answers them on the other, both as loops over epoll that cost little beside what is measured.
//
// A closed load keeps a number of connections under way and shows the maximum; an open one starts them at a fixed rate and
// counts each latency from the moment it was due, so that a stall is seen by all that it delayed. Connections end with FIN.
// No cryptography is done: a network's cost must not drown in it.
//
// It promises to count every connection that did not end as it should, and why. It never touches a namespace that it
// was not given.
package load
