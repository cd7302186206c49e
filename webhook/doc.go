// Package webhook makes pods talk to their API server by name, so that a
// firewall can know who is being spoken to: it turns a pod into the patch that
// gives its containers the four variables of the API server's name, answers
// the API server's admission reviews with it, and reads workloads to say which
// of them still talk to an address.
//
// It promises that a patch applies to the pod it was made for, that a second
// one changes nothing, and that a pod outside the scope is never touched. It
// never denies an admission: what it cannot read is let through as it is. It
// keeps no state and asks nobody while it answers.
package webhook
