// Package mirror is a pull-through OCI registry: it serves what it holds, and
// fetches from an upstream registry what it lacks, once for any number of clients.
//
// It promises that no client is ever given the end of a blob whose digest does
// not match, that nothing becomes part of the store before its digest and size
// were checked, that what it holds is served with every upstream dead and after
// any crash, and that it only serves the repositories that it was told to.
//
// It never accepts a push, never follows a URL that a manifest names, never sends
// a credential to a host other than the one it was configured for, and never
// shows an upstream's credential, or a path of its own machine, to a client.
//
// [Mirror] answers HTTP, [Upstream] is one registry behind it, and [Store] what
// lies on the disk: files that several processes may use at once.
package mirror
