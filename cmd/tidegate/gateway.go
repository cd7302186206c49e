package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"tidegate.io/tidegate/config"
)

// defaultConfig is where the gateway's file is expected.
const defaultConfig = "/etc/tidegate/gateway.yaml"

// controlFile is the socket in the state directory by which the gateway takes
// commands.
const controlFile = "control.sock"

func gatewayCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "gateway",
		Short: "Enforce the clusters' rules on this machine",
		Long: `The gateway enforces exactly what its file says: the rules that its clusters need, from
the output of az aks show, and the file's own. Nothing else gets out.`,
		Example: `  tidegate gateway validate --config gateway.yaml
  tidegate gateway run --config gateway.yaml
  tidegate gateway status`,
	}
	cmd.PersistentFlags().StringVarP(&path, "config", "c", defaultConfig, "the gateway's `FILE`")
	cmd.AddCommand(gatewayRunCommand(&path), gatewayStatusCommand(&path), gatewayReloadCommand(&path), gatewayValidateCommand(&path))
	return cmd
}

// readGateway reads the gateway's file and what it points to, relative to it.
func readGateway(path string) (*config.Gateway, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	g, err := config.Read(path, text, func(name string) (io.ReadCloser, error) { return os.Open(beside(path, name)) })
	if err != nil {
		return nil, err
	}
	g.State = beside(path, g.State)
	if g.FlowLog != "" {
		g.FlowLog = beside(path, g.FlowLog)
	}
	return g, nil
}

// beside finds what the gateway's file names, relative to it.
func beside(path, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(path), name)
}

// stateOf finds the state directory that a gateway's file names.
func stateOf(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	dir, err := config.StateDir(path, text)
	return beside(path, dir), err
}

func gatewayValidateCommand(path *string) *cobra.Command {
	var strict bool
	cmd := &cobra.Command{
		Use:   "validate",
		Short: "Read the gateway's file and say what deserves a look",
		Long: `Reads the gateway's file and everything it points to, as run and reload would, and
changes nothing. Warnings are about rules that open more than they seem to, that anybody
could use, or that others make superfluous; notes say what could not be known from the
clusters' files and was assumed.`,
		Example: "  tidegate gateway validate --config gateway.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			g, err := readGateway(*path)
			if err != nil {
				return err
			}
			policy, err := g.Policy()
			if err != nil {
				return err
			}
			for _, n := range g.Notes {
				fmt.Fprintf(cmd.ErrOrStderr(), "note: %s\n", n)
			}
			warnings := g.Warnings()
			for _, w := range warnings {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", w)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: policy %s, %d clusters, %d rules, %d warnings\n",
				*path, policy.ID(), len(g.Clusters), len(g.Rules), len(warnings))
			if strict && len(warnings) > 0 {
				return answerNo()
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&strict, "strict", false, "exit 1 if there is a warning")
	return cmd
}
