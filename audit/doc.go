// Package audit holds what people already have, the policy or the log of
// another firewall, against what a cluster needs.
//
// A policy is read into grants, each with the meaning that its own product
// gives it: `*.a.b` is any depth to Azure Firewall and one label to Cilium,
// `*a.b` catches look-alikes, `.a.b` of Squid holds a.b too. Whether a need is
// covered is decided on sets of names, addresses and ports, never on strings:
//
//	policy, err := audit.ReadPolicy("policy.json", file)
//	report := policy.Judge(audit.Needs{Rules: rules})
//
// A log is read line by line in constant memory (see [Log]).
//
// The package is pure: no network, no clock, no disk beyond the readers it is
// given. What it cannot understand it says ([Policy.Unread]); such an entry never
// counts as covering anything. It changes no firewall.
package audit
