// Package peers holds the webhook's chart against the programs that will read
// it, Helm's engine and the API server's evaluation of match conditions, and the
// webhook against a real API server, with real controllers and kubectl. It is
// a module of its own, so that Tidegate needs neither.
package peers
