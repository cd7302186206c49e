// Package gateway joins what DNS told a cluster to the packets its clients send: it
// follows each connection that is not decided yet, asks the policy, and says what
// becomes of it.
//
// A [Follower] sees both directions of a connection from its SYN on and holds the
// client's first bytes back until the name in them is judged. It promises that
//
//   - a server never gets the last byte of a ClientHello that was not allowed;
//   - what the server got is what was judged: every byte let through was recorded at its
//     sequence number, a byte sent again with another value kills the connection, and
//     a connection is let go only after the server itself has acknowledged the hello
//     and answered it with a ServerHello that is no HelloRetryRequest;
//   - the verdict does not depend on how the bytes were cut, ordered or repeated;
//   - everything that a client can make grow has a bound for itself and one for all,
//     and one client at its bound leaves the others alone;
//   - what is not understood is denied.
//
// [Bindings] holds which name has which address, and for which cluster; a [Journal]
// keeps it over a restart, as [Numbers] keeps the numbers of rules that connections
// carry in their marks. [APIServers] follows the addresses of the clusters' API servers,
// and [Cut] says which live connections a new policy ends.
//
// The package makes no system call, and a Follower starts no goroutine and looks at no
// clock: time, packets and answers are arguments, and what has to happen goes out through
// functions. It never changes or builds a packet but a reset.
//
// Where to look: follower.go for what happens to a packet, client.go and server.go for the
// two directions, judge.go for the decision, request.go for HTTP that is only observed, ending.go
// for how a connection leaves.
package gateway
