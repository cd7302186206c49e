// Package peers holds what export writes against the types, grammars, programs
// and servers of those who will read it: Azure's SDK, Terraform's provider for
// Azure, HCL and Bicep, Envoy's messages with their rules, and a Kubernetes API
// server with the real definitions. It reads the golden files of export, which
// that package's own tests keep equal to its output; and each reader has to
// refuse defects that are put into them, or it proves nothing.
//
// It is a module of its own, so that the product depends on none of this.
package peers
