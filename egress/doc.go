// Package egress holds the vocabulary of an outbound firewall and its one
// decision.
//
// A [Rule] permits some clients to reach some [Endpoint]s and says why. Rules
// only permit: [Compile] joins any number of them, in any order, into a
// [Policy], and [Policy.Decide] answers for one [Conn] with a [Verdict] whose
// zero value denies.
//
// Every word has one text form, read by ParseX and printed by String, used
// alike in files, on command lines, in logs and in tests:
//
//	mcr.microsoft.com                              a Name
//	*.data.mcr.microsoft.com                       a Pattern
//	https://*.data.mcr.microsoft.com:443           an Endpoint
//	udp://@AzureCloud.westeurope:1194              an Endpoint behind a service tag
//	tcp://20.103.4.5:9000                          an Endpoint by address
//	https 10.224.0.4:50312 > 20.1.2.3:443 mcr.microsoft.com   a Conn
//
// The package is pure: no clock, no network, no disk, no state that changes
// after Compile. It never resolves a name and never widens a rule.
package egress
