package main

import (
	"encoding/json"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"tidegate.io/tidegate/internal/results"
	"tidegate.io/tidegate/lab"
)

// runAttack carries out attacks on a gateway with the cluster's rules and those that the attacks pretend to follow.
func runAttack(cmd *cobra.Command, f labFlags) error {
	text, err := readLabCluster(cmd.InOrStdin(), f.cluster)
	if err != nil {
		return err
	}
	kinds, err := lab.ParseKinds(f.only)
	if err != nil {
		return err
	}
	dir, err := lab.Furnish()
	if err != nil {
		return undecided(err)
	}
	siege := lab.Siege{
		Dir: dir, Kinds: kinds, Quick: f.quick, Progress: cmd.ErrOrStderr(), Live: isTerminal(os.Stderr),
		Site: func(dir string) (lab.Config, error) {
			return attackSite(dir, text, func() *exec.Cmd { return lab.Self("gateway", "run", "--config", lab.GatewayFile) })
		},
	}
	report, err := siege.Run(cmd.Context())
	if err != nil {
		return undecided(err)
	}
	if f.results != "" {
		if err := results.Save(f.results, "attacks", report); err != nil {
			return undecided(err)
		}
	}
	if f.output == "json" {
		e := json.NewEncoder(cmd.OutOrStdout())
		e.SetIndent("", "  ")
		err = e.Encode(map[string]any{"apiVersion": "tidegate.io/v1", "kind": "Results", "attacks": report})
	} else {
		err = report.WriteTable(cmd.OutOrStdout(), isTerminal(os.Stdout) && os.Getenv("NO_COLOR") == "")
	}
	switch {
	case err != nil:
		return undecided(err)
	case !report.OK():
		return answerNo()
	}
	return nil
}

// attackSite writes a gateway's files into dir, for a cluster with the rules of the attacks.
func attackSite(dir string, cluster []byte, start func() *exec.Cmd) (lab.Config, error) {
	private, err := privateNames(cluster)
	if err != nil {
		return lab.Config{}, err
	}
	g, err := writeGatewayFiles(dir, cluster, lab.AttackRules)
	if err != nil {
		return lab.Config{}, err
	}
	conf := lab.Config{Rules: g.Rules, Private: private, Gateway: start, Ready: lab.Ready}
	for _, c := range g.Clusters {
		conf.Clusters = append(conf.Clusters, c.Cluster)
	}
	return conf, nil
}
