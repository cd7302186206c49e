// Package check tries endpoints as their protocols are used, from the machine it runs on, and says where each broke.
//
// [Targets] turns the rules of a cluster into what can be tried; [Host.Run] tries everything at once, one [Probe] a
// protocol, and [NewReport] draws the conclusion.
//
// It promises that nothing counts as reached because a connection was accepted: TLS must show the right name under a
// trusted authority, HTTP must answer as the service does, a time server must tell the time. What could not be found
// out is said to be unproven, never passed. It sends nothing but the question itself, no credentials but those given
// for a registry, which go to that registry alone, and changes nothing.
package check
