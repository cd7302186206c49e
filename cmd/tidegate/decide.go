package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"tidegate.io/tidegate/aks"
	"tidegate.io/tidegate/egress"
)

func decideCommand() *cobra.Command {
	var facts factFlags
	var policyFile, output string
	var bound bool
	cmd := &cobra.Command{
		Use:   "decide CONNECTION...",
		Short: "Say whether a connection would be allowed, and by which rule",
		Long: `Decide judges connections as the gateway would, by the rules of a cluster or by a
gateway's file. A connection is written

  proto [source >] destination [name]      https 20.1.2.3:443 mcr.microsoft.com

with https or http and the name that the client shows, or tcp or udp. Without its address
a destination is written name:port. A name alone proves nothing: it is allowed to the
addresses that DNS gave for it, and --bound says that this is one.

It exits 0 when all are allowed, 1 when one is denied, 3 when more has to be seen of one.`,
		Example: `  tidegate decide --cluster prod.json --bound 'https 20.1.2.3:443 mcr.microsoft.com'
  tidegate decide --cloud public --region westeurope 'udp 8.8.8.8:53'`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conns, err := parseConns(args, bound)
			if err != nil {
				return err
			}
			var policy *egress.Policy
			switch {
			case policyFile != "" && (facts.cluster != "" || facts.cloud != ""):
				return errors.New("--policy and a cluster: want one of them")
			case policyFile != "":
				policy, err = filePolicy(policyFile, conns)
			default:
				policy, err = clusterPolicy(&facts, cmd.InOrStdin())
			}
			if err != nil {
				return err
			}
			return decideAll(cmd.OutOrStdout(), output, policy, conns)
		},
	}
	facts.add(cmd)
	cmd.Flags().StringVar(&policyFile, "policy", "", "judge by a gateway's `FILE` instead of a cluster")
	cmd.Flags().BoolVar(&bound, "bound", false, "DNS gave the destination's address for the name")
	outputFlag(cmd, &output, "text", "json")
	return cmd
}

// assumedAddr stands for the address of a connection that names none and is
// said to be bound: any that is not guarded.
var assumedAddr = netip.AddrFrom4([4]byte{20, 0, 0, 1})

// asked is a connection, as it was asked about and as it is judged.
type asked struct {
	text string
	conn egress.Conn
}

func parseConns(texts []string, bound bool) ([]asked, error) {
	var out []asked
	for _, text := range texts {
		c, err := egress.ParseConn(text)
		if err != nil {
			return nil, err
		}
		if bound && !c.Name.IsZero() {
			c.Bound = []egress.Name{c.Name}
			if !c.Dst.Addr().IsValid() {
				c.Dst = netip.AddrPortFrom(assumedAddr, c.Dst.Port())
			}
		}
		out = append(out, asked{text, c})
	}
	return out, nil
}

// filePolicy compiles the policy of a gateway's file, whose rules are for some
// clients: a connection has to say which one it comes from.
func filePolicy(name string, conns []asked) (*egress.Policy, error) {
	for _, a := range conns {
		if !a.conn.Src.Addr().IsValid() {
			return nil, fmt.Errorf("connection %q: by a gateway's file it needs a source, as in: https 10.224.0.4 > 20.1.2.3:443 mcr.microsoft.com", a.text)
		}
	}
	g, err := readGateway(name)
	if err != nil {
		return nil, err
	}
	return g.Policy()
}

// clusterPolicy compiles the rules of one cluster, for every client.
func clusterPolicy(facts *factFlags, stdin io.Reader) (*egress.Policy, error) {
	_, res, err := facts.rules(stdin)
	if err != nil {
		return nil, err
	}
	rules := res.Egress()
	for _, r := range rules {
		for _, e := range r.To {
			if _, tag := e.Host.(egress.Tag); tag {
				return nil, fmt.Errorf("rule %s: the prefixes of %s are not known; give --service-tags", r.ID, e.Host)
			}
		}
	}
	return egress.Compile(rules, nil)
}

// decision is an item of decide -o json.
type decision struct {
	Conn   string        `json:"conn"`
	Action egress.Action `json:"action"`
	Reason egress.Reason `json:"reason"`
	Rule   string        `json:"rule,omitempty"`
	Advice string        `json:"advice"`
	Seen   *seenItem     `json:"seen,omitempty"`
}

func decideAll(w io.Writer, output string, policy *egress.Policy, conns []asked) error {
	items := []decision{}
	denied, waiting := false, false
	for _, a := range conns {
		v := policy.Decide(a.conn)
		d := decision{Conn: a.text, Action: v.Action, Reason: v.Reason, Advice: v.Reason.Advice()}
		switch v.Action {
		case egress.Allow:
			d.Rule = v.Rule.ID
			d.Advice = v.Rule.Why
		case egress.Wait:
			waiting = true
		default:
			denied = true
			if s, ok := aks.Embedded().FindSeen(aks.Query{Name: a.conn.Name, Addr: a.conn.Dst.Addr()}); ok {
				d.Seen = &seenItem{s.Match, s.State, s.Why}
			}
		}
		items = append(items, d)
	}
	var b bytes.Buffer
	if err := printDecisions(&b, output, painting(w), policy, items); err != nil {
		return err
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return err
	}
	switch {
	case denied:
		return answerNo()
	case waiting:
		return undecided(nil)
	}
	return nil
}

func printDecisions(w io.Writer, output string, p paint, policy *egress.Policy, items []decision) error {
	if output == "json" {
		return writeJSON(w, struct {
			APIVersion string     `json:"apiVersion"`
			Kind       string     `json:"kind"`
			Policy     string     `json:"policy"`
			Items      []decision `json:"items"`
		}{apiVersion, "Decisions", policy.ID(), items})
	}
	for _, d := range items {
		action := d.Action.String()
		switch d.Action {
		case egress.Allow:
			action = p.green(action)
		case egress.Deny:
			action = p.red(action)
		default:
			action = p.yellow(action)
		}
		fmt.Fprintf(w, "%s\n  %s\n", p.bold(d.Conn), strings.TrimSpace(action+"  "+d.Reason.String()+"  "+d.Rule))
		fmt.Fprintf(w, "  %s\n", wrap("  ", d.Advice))
		if d.Seen != nil {
			fmt.Fprintf(w, "  %s: %s\n", d.Seen.State, wrap("  ", d.Seen.Why))
		}
	}
	return nil
}
