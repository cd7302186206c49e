// Package isolated turns a cluster's facts into what makes it network isolated,
// and keeps it so: nodes that boot from a private registry, and nothing that
// leaves.
//
// [PlanFor] joins the facts with how AKS does it: the ordered steps, the
// artefacts for them (commands, an ARM template, the same in Bicep), what is not
// supported for this very cluster, the private endpoints that its add-ons need,
// and what its nodes ask the registry for when they boot.
//
// It is pure: no network, no clock, no disk. It never opens Microsoft's registry
// to a cluster: what is missing there is missing in the private registry, its
// cache rule, its endpoint or its DNS. What a file cannot say is said to be
// unknown, and a text of the cluster's never becomes a command or an expression.
package isolated
