// Package dnsproxy is the DNS server that a cluster asks: it filters, caches,
// and reports every answer before sending it.
//
// It promises that
//
//   - a name that may not be resolved is answered here and no query leaves for
//     it, so that DNS carries nothing out (tunnels);
//   - an address is answered only after [Server.Learn] heard of it, bound to the
//     name that was asked and to nothing else in the upstream's message;
//   - what an upstream says is believed only along the chain of aliases from the
//     question, in its own answer to our own query (RFC 5452), and is packed
//     anew, never passed on as it came;
//   - everything a client or an upstream can make grow has a bound.
//
// It never decides what may be connected to, never opens anything itself,
// touches no machine setting and opens no listening socket: its sockets are
// given to it. A Server whose functions are nil answers nobody.
package dnsproxy
