package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"tidegate.io/tidegate/aks"
	"tidegate.io/tidegate/config"
	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/lab"
)

// labFlags are what can be asked of the lab.
type labFlags struct {
	cluster string
	plain   bool
	gso     bool
	once    bool
	output  string
	attack  bool
	only    []string
	quick   bool
	results string
}

func labCommand() *cobra.Command {
	var f labFlags
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Boot a node through the gateway, in network namespaces on this machine",
		Long: `Builds two nodes, a virtual network, the gateway and an internet in network
namespaces on this machine, boots a node through the gateway, tries several
hundred connections that must not get out, and reports. Then the lab stays open
for "tidegate lab exec" until Ctrl-C; whatever ends it, nothing is left behind.

With --attack it carries out everything that is known to get around such a
gateway, some thousand connections, each three times: without a gateway, where it
must arrive or proves nothing; through the gateway, where it must not; and as its
honest twin, which must. What the servers saw decides.

It runs as root, and as an ordinary user where the system allows user namespaces.`,
		Example: `  tidegate lab
  tidegate lab --cluster prod.json --once
  tidegate lab --attack --only decoys,overlaps`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.output != "table" && f.output != "json" {
				return fmt.Errorf("-o %s: want table or json", f.output)
			}
			if !lab.Inside() {
				if err := f.check(); err != nil {
					return err
				}
				return exitWith(lab.Enter(cmd.Context()))
			}
			if f.attack {
				return runAttack(cmd, f)
			}
			return runLab(cmd, f)
		},
	}
	cmd.Flags().StringVar(&f.cluster, "cluster", "", "`FILE` with the output of az aks show -o json, - for standard input; default: an example")
	cmd.Flags().BoolVar(&f.plain, "plain", false, "no gateway, only forwarding: the control, in which everything gets out")
	cmd.Flags().BoolVar(&f.gso, "gso", true, "let the kernel pass several segments as one packet; with =false packets are what a wire carries")
	cmd.Flags().BoolVar(&f.once, "once", false, "end after the report; exit status 1 if anything is not as expected")
	cmd.Flags().StringVarP(&f.output, "output", "o", "table", "table or json")
	cmd.Flags().BoolVar(&f.attack, "attack", false, "carry out attacks, report, and end; exit status 1 if one arrives or a legal connection does not")
	cmd.Flags().StringSliceVar(&f.only, "only", nil, "with --attack: these `FAMILIES` alone")
	cmd.Flags().BoolVar(&f.quick, "quick", false, "with --attack: each attack in one form, in place of all")
	cmd.Flags().StringVar(&f.results, "results", "", "with --attack: write the outcome into this `FILE` too, as its \"attacks\"")
	cmd.AddCommand(labExecCommand(), labFaultsCommand())
	return cmd
}

func labExecCommand() *cobra.Command {
	node := 1
	cmd := &cobra.Command{
		Use: "exec -- COMMAND [ARGUMENT…]",
		Long: `Exec runs a command on a node of the lab that is open in another terminal, with the node's
addresses, DNS and trusted authorities, and returns its exit status.`,
		Short:   "Run a command on a node of the running lab",
		Example: "  tidegate lab exec -- curl https://mcr.microsoft.com/v2/",
		Args:    cobra.MinimumNArgs(1),
		RunE:    func(_ *cobra.Command, args []string) error { return exitWith(lab.Exec(node, args)) },
	}
	cmd.Flags().IntVar(&node, "node", node, "1 or 2; the cluster's DNS runs on 2")
	return cmd
}

// check finds mistakes before anything is built.
func (f *labFlags) check() error {
	if _, err := lab.ParseKinds(f.only); err != nil {
		return err
	}
	if !f.attack && (len(f.only) > 0 || f.quick || f.results != "") {
		return errors.New("--only, --quick and --results go with --attack")
	}
	if f.attack && f.plain {
		return errors.New("--attack has its own control; --plain does not go with it")
	}
	return checkLabCluster(f.cluster)
}

// exitWith ends the program as another one has ended.
func exitWith(code int, err error) error {
	switch {
	case err != nil:
		return undecided(err)
	case code != exitYes:
		return &exitError{code: code}
	}
	return nil
}

func runLab(cmd *cobra.Command, f labFlags) error {
	text, err := readLabCluster(cmd.InOrStdin(), f.cluster)
	if err != nil {
		return err
	}
	private, err := privateNames(text)
	if err != nil {
		return err
	}
	dir, err := lab.Furnish()
	if err != nil {
		return undecided(err)
	}
	gateway, err := writeGatewayFiles(dir, text, "")
	if err != nil {
		return err
	}
	show := lab.Show{
		Title:    labTitle(gateway),
		FlowLog:  filepath.Join(dir, lab.FlowLogFile),
		Once:     f.once,
		JSON:     f.output == "json",
		Colour:   isTerminal(os.Stdout) && os.Getenv("NO_COLOR") == "",
		Live:     isTerminal(os.Stderr),
		Out:      cmd.OutOrStdout(),
		Progress: cmd.ErrOrStderr(),
		Config:   lab.Config{Dir: dir, Rules: gateway.Rules, Private: private, NoGSO: !f.gso},
	}
	for _, c := range gateway.Clusters {
		show.Clusters = append(show.Clusters, c.Cluster)
	}
	if !f.plain {
		show.Gateway = func() *exec.Cmd { return lab.Self("gateway", "run", "--config", lab.GatewayFile) }
		show.Ready = lab.Ready
	}
	ok, err := show.Run(cmd.Context())
	switch {
	case err != nil:
		return undecided(err)
	case !ok && f.once:
		return answerNo()
	}
	return nil
}

// maxLabCluster bounds the file of a cluster: real ones are a hundredth of it.
const maxLabCluster = 4 << 20

func readLabCluster(stdin io.Reader, name string) ([]byte, error) {
	switch name {
	case "":
		return lab.Example, nil
	case "-":
		return io.ReadAll(io.LimitReader(stdin, maxLabCluster))
	}
	return os.ReadFile(name)
}

// checkLabCluster finds mistakes in a file before anything is built. Standard input can be read only once, later.
func checkLabCluster(name string) error {
	if name == "-" {
		return nil
	}
	text, err := readLabCluster(nil, name)
	if err != nil {
		return err
	}
	_, err = privateNames(text)
	return err
}

// privateNames are what the cluster must find inside its own network.
func privateNames(text []byte) ([]string, error) {
	cluster, err := aks.Read(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	needs, err := cluster.Rules(aks.Options{})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, check := range needs.Private {
		if n, ok := check.Name.Exact(); ok {
			names = append(names, n.String())
		}
	}
	return names, nil
}

// writeGatewayFiles writes what the gateway is configured with, and reads it as the gateway will. more is text for the end
// of its file.
func writeGatewayFiles(dir string, cluster []byte, more string) (*config.Gateway, error) {
	text := []byte(lab.GatewayConfig("lab", more))
	for name, b := range map[string][]byte{lab.ClusterFile: cluster, lab.GatewayFile: text} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return nil, undecided(err)
		}
	}
	return config.Read(lab.GatewayFile, text, func(name string) (io.ReadCloser, error) { return os.Open(filepath.Join(dir, name)) })
}

func labTitle(g *config.Gateway) string {
	endpoints := 0
	for _, r := range g.Rules {
		endpoints += len(r.To)
	}
	api := egress.Name{}
	if len(g.Clusters) > 0 {
		api = g.Clusters[0].APIServer
	}
	return fmt.Sprintf("API server %s; %d rules, %d endpoints", api, len(g.Rules), endpoints)
}
