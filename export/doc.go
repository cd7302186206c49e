// Package export writes egress rules in the formats of other firewalls.
//
// A [Format] is a row of one table and a function in a file of its own. The row
// says what the target can express; what it cannot becomes a [Gap] before the
// format sees it, so that no format has to remember to refuse:
//
//	f, err := export.Find("azure-firewall")
//	out, err := f.Export(policy)
//
// The package is pure: values in, bytes out, the same bytes for the same
// policy. It never opens more than the rules say, unless a [Widening] is asked
// for by its name, and then the Gap says what was opened. It never copies a
// wildcard: "*.a.b" means one or more labels here and something else in most
// targets, so it is written as the target spells that meaning, or not at all.
package export
