// Package httpproxy judges every HTTP/1 request by itself and sends on what was
// judged, written anew from the parsed request.
//
// A connection is judged again and again because its next request may name
// another host: a filter that judges the first one and then lets the bytes flow
// has been passed. And requests are written anew, never copied, because a
// filter that copies bytes is passed wherever it and the server read them
// differently. So this package promises that an origin receives only requests
// that were permitted, each in the one canonical form that [wire.Request]
// has, over a connection that serves a single client, and that what it cannot read
// in exactly one way goes nowhere: a request gets 400, a response 502.
//
// There are two ways in. [Server.ServeTransparent] takes connections that the
// kernel diverted, and sends each request to the address that the client
// dialled. [Server.ServeProxy] is an explicit proxy, CONNECT and
// http:// targets, which needs no privilege; it resolves names itself, and
// permits no tunnel whose TLS names another server than CONNECT did.
//
// It never decides: the policy, the resolver and the sockets are functions of the
// [Server]. It never pools connections between clients, never adds fields
// about the client, never caches, never follows an Upgrade, and keeps nothing of a
// body.
//
// Where to look: server.go accepts and bounds; client.go is the loop over the
// requests of one connection; exchange.go and body.go one request and its answer; response.go and
// fields.go what is read and dropped; refuse.go what a client is told; route.go,
// connect.go and tunnel.go the explicit proxy.
package httpproxy
