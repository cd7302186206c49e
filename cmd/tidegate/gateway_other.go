//go:build !linux

package main

import (
	"github.com/spf13/cobra"

	"tidegate.io/tidegate/kernel"
)

// gatewayRunCommand says that the gateway needs Linux; everything else of the
// program works elsewhere too.
func gatewayRunCommand(*string) *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Enforce until stopped (on Linux)",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return undecided(kernel.ErrUnsupported) },
	}
}
