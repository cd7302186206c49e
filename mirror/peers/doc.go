// Package peers holds the mirror against those who pull through it: containerd, old
// and new, skopeo as Debian ships it, crane, an oras-go program that does what a
// node's bootstrap does, and the conformance tests of the OCI distribution
// specification. It is a module of its own, so that the program needs none of them.
package peers
