package main

import "github.com/spf13/cobra"

func isolatedCheckCommand() *cobra.Command { return &cobra.Command{Use: "check"} }
