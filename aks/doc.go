// Package aks knows what an AKS cluster needs of the outside.
//
// [Read] turns the JSON of a cluster into facts, a [Cluster]. The catalogue
// (catalogue/*.yaml, one paragraph a row of Microsoft's article) holds what is
// needed under which facts, with the dates between which the article said so.
// [Cluster.Rules] joins the two into egress rules, with notes on everything
// that the facts leave open and on where the article is not followed:
//
//	cluster, err := aks.Read(file)
//	result, err := cluster.Rules(aks.Options{})
//
// The package is pure: no network, no clock, no disk beyond the readers it is
// given. It never guesses in silence, never leaves a placeholder in a rule, and
// never opens another cloud's hosts.
package aks
