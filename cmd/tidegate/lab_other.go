//go:build !linux

package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func labCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "lab",
		Short:   "Boot a node through the gateway (Linux only)",
		Example: "  tidegate lab",
		RunE: func(*cobra.Command, []string) error {
			return undecided(errors.New("lab: needs the network namespaces of Linux"))
		},
	}
}
