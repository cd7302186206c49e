package main

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tidegate.io/tidegate/aks"
	"tidegate.io/tidegate/config"
	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/why"
)

// whyFlags are what is known besides the text.
type whyFlags struct {
	flows, config string
	to            string
	since, until  string
	margin        time.Duration
	output        string
}

func whyCommand() *cobra.Command {
	var f whyFlags
	cmd := &cobra.Command{
		Use:   "why EXIT-CODE|TEXT|FILE",
		Short: "The node is NotReady: what was it reaching, which rule, was it denied, what to change",
		Long: `Reads the exit code of a node's bootstrap, the error of a VM extension, an event, a
pod's error, lines of a log, or a file with any of these (- is stdin), and says what
was being reached, how it failed, and which rule covers it. With the gateway's flow
log, or Azure Firewall's, it says whether it was denied in that time, and with the gateway's file
whether its policy permits it, and what to write into it if not. --to writes that in
another firewall's format.

Exit status: 0 something is explained, 1 nothing in it is known, 2 asked wrongly.`,
		Example: `  tidegate why 50
  tidegate why 'Failed to pull image "mcr.microsoft.com/oss/kubernetes/pause:3.6": i/o timeout'
  tidegate why /var/log/azure/cluster-provision.log --flows flows.jsonl --config gateway.yaml
  tidegate why 50 --to azure-firewall
  kubectl get events -A -o json | tidegate why -`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			found, err := readTexts(cmd.InOrStdin(), args)
			if err != nil {
				return err
			}
			items, err := f.explain(found)
			if err != nil {
				return err
			}
			var b bytes.Buffer
			if f.output == "json" {
				err = writeJSON(&b, whyDocument{apiVersion, "Why", items})
			} else {
				printWhy(&b, painting(cmd.OutOrStdout()), items)
			}
			if err != nil {
				return err
			}
			if _, err := cmd.OutOrStdout().Write(b.Bytes()); err != nil {
				return err
			}
			if len(items) == 0 {
				return answerNo()
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&f.flows, "flows", "", "the gateway's flow log or Azure Firewall's log, a `FILE` of JSON lines")
	cmd.Flags().StringVar(&f.config, "config", "", "the gateway's `FILE`, to be asked whether its policy permits what was being reached")
	cmd.Flags().StringVar(&f.to, "to", "", "write what to change in this `FORMAT`, as of export (default: for a gateway's file)")
	cmd.Flags().StringVar(&f.since, "since", "", "look at flows from this time on, as in 2026-11-25T17:40:00Z (default: the text's first time, less --margin)")
	cmd.Flags().StringVar(&f.until, "until", "", "look at flows up to this time (default: the text's last time, and --margin)")
	cmd.Flags().DurationVar(&f.margin, "margin", 15*time.Minute, "around the times in the text; a node's bootstrap takes up to 15 minutes")
	outputFlag(cmd, &f.output, "text", "json")
	return cmd
}

// readTexts reads a file if there is one of that name, stdin for -, and otherwise the arguments themselves.
func readTexts(stdin io.Reader, args []string) ([]why.Finding, error) {
	if len(args) == 1 {
		if _, err := os.Stat(args[0]); err == nil || args[0] == "-" || meansFile(args[0]) {
			return readFile(args[0], stdin, why.Read)
		}
	}
	return why.Read(strings.NewReader(strings.Join(args, " ")))
}

// meansFile reports whether a word is a file's name, so that a file which is not there is not read as an error text in
// which nothing is known.
func meansFile(s string) bool {
	return !strings.ContainsAny(s, " \n") && (filepath.IsAbs(s) || strings.HasPrefix(s, ".") || slices.Contains([]string{".log", ".txt", ".json", ".jsonl"}, filepath.Ext(s)))
}

// whyDocument is what why prints as JSON.
type whyDocument struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Items      []whyItem `json:"items"`
}

// whyItem is one finding with everything that is known of it.
type whyItem struct {
	Line      int           `json:"line"`
	Count     int           `json:"count"`
	Text      string        `json:"text"`
	Step      string        `json:"step,omitempty"`
	Doing     string        `json:"doing,omitempty"`
	Way       string        `json:"way,omitempty"`
	How       string        `json:"how,omitempty"`
	Reaching  []whyEndpoint `json:"reaching"`
	APIServer bool          `json:"apiServer,omitempty"` // it was reaching the API server, and does not say its name
	Inside    bool          `json:"inside,omitempty"`    // no firewall is in the way of it
	Window    *whyWindow    `json:"window,omitempty"`    // the time that the flow log was searched for
	Flows     *int          `json:"flows,omitempty"`     // in the window; absent without a flow log
	Denials   []why.Denial  `json:"denials,omitempty"`
	Advice    []string      `json:"advice"`
	Change    string        `json:"change,omitempty"` // for the gateway's file, or in the format of --to
}

type whyWindow struct {
	From time.Time `json:"from,omitzero"`
	To   time.Time `json:"to,omitzero"`
}

type whyEndpoint struct {
	Endpoint  egress.Endpoint `json:"endpoint"`
	Rules     []string        `json:"rules,omitempty"` // of the catalogue
	Need      string          `json:"need,omitempty"`
	When      []string        `json:"when,omitempty"`      // the features that need it
	Permitted string          `json:"permitted,omitempty"` // by which rule of the gateway's file
	Denied    *egress.Reason  `json:"denied,omitempty"`    // why the gateway's policy does not
}

func (f *whyFlags) explain(found []why.Finding) ([]whyItem, error) {
	var gateway *config.Gateway
	var policy *egress.Policy
	if f.config != "" {
		var err error
		if gateway, err = readGateway(f.config); err != nil {
			return nil, err
		}
		if policy, err = gateway.Policy(); err != nil {
			return nil, err
		}
	}
	for i := range found {
		if found[i].APIServer && gateway != nil {
			found[i].Endpoints = append(found[i].Endpoints, apiServers(gateway)...)
		}
	}
	searches, err := f.search(found)
	if err != nil {
		return nil, err
	}
	items := []whyItem{}
	for i := range found {
		x := &found[i]
		item := whyItem{
			Line: x.Line, Count: x.Count, Text: clean(x.Text), Step: x.Step.ID, Doing: x.Step.Means, Way: x.Way.ID, How: x.Way.Means,
			APIServer: x.APIServer, Inside: x.Step.Inside, Reaching: []whyEndpoint{}, Advice: []string{},
		}
		for _, e := range x.Endpoints {
			item.Reaching = append(item.Reaching, knownOf(e, gateway, policy))
		}
		if searches != nil {
			s := searches[i]
			item.Window, item.Flows, item.Denials = &whyWindow{s.Window.From, s.Window.To}, &s.Flows, s.Denials
		}
		if err := item.advise(gateway != nil, f.to); err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, nil
}

func apiServers(g *config.Gateway) []egress.Endpoint {
	var out []egress.Endpoint
	for _, c := range g.Clusters {
		if p, err := egress.ParsePattern(c.APIServer.String()); err == nil {
			out = append(out, egress.Endpoint{Proto: egress.HTTPS, Host: p, Ports: egress.Ports{First: 443, Last: 443}})
		}
	}
	return out
}

// knownOf looks an endpoint up in the catalogue, and in the gateway's policy for each cluster's clients.
func knownOf(e egress.Endpoint, g *config.Gateway, policy *egress.Policy) whyEndpoint {
	k := whyEndpoint{Endpoint: e}
	c := aks.Embedded()
	if q, err := c.ParseQuery(e.String()); err == nil {
		for _, found := range c.Find(q) {
			k.Rules = append(k.Rules, found.Row.ID)
			if k.Need == "" {
				k.Need = found.Row.Need.String()
				for _, w := range found.Row.When {
					k.When = append(k.When, string(w))
				}
			}
		}
	}
	if policy == nil {
		return k
	}
	for _, cluster := range g.Clusters {
		v, ok := decideFor(policy, cluster, e)
		if !ok {
			continue
		}
		if v.Action == egress.Allow {
			k.Permitted = v.Rule.ID
		} else {
			k.Permitted, k.Denied = "", &v.Reason
			return k // one cluster that is denied is what was asked about
		}
	}
	return k
}

// decideFor asks whether a client of the cluster may reach an endpoint, as if DNS had just given its address. It reports
// false for what is not the gateway's to decide: names and addresses inside the network.
func decideFor(policy *egress.Policy, cluster config.Cluster, e egress.Endpoint) (egress.Verdict, bool) {
	c := egress.Conn{Proto: e.Proto, Dst: netip.AddrPortFrom(assumedAddr, e.Ports.First)}
	for _, p := range cluster.From {
		if p.Addr().Is4() {
			c.Src = netip.AddrPortFrom(p.Addr().Next(), 40000)
		}
	}
	switch h := e.Host.(type) {
	case egress.Pattern:
		n, exact := h.Exact()
		inside := func(p egress.Pattern) bool { return p.Match(n) }
		if !exact || slices.ContainsFunc(cluster.Resolvable, inside) {
			return egress.Verdict{}, false
		}
		c.Bound = []egress.Name{n}
		if e.Proto.Named() {
			c.Name = n
		}
	case egress.Net:
		if slices.ContainsFunc(cluster.Internal, func(p netip.Prefix) bool { return p.Contains(h.Addr()) }) {
			return egress.Verdict{}, false
		}
		c.Dst = netip.AddrPortFrom(h.Addr(), e.Ports.First)
	}
	return policy.Decide(c), true
}

// search looks for denials of each finding in the flow log; nil if there is none to look at.
func (f *whyFlags) search(found []why.Finding) ([]*why.Search, error) {
	if f.flows == "" {
		return nil, nil
	}
	searches := make([]*why.Search, len(found))
	for i := range found {
		w, err := f.window(&found[i])
		if err != nil {
			return nil, err
		}
		searches[i] = &why.Search{Window: w, About: found[i].About}
	}
	file, err := os.Open(f.flows)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := why.ReadDenials(file, searches); err != nil {
		return nil, fmt.Errorf("%s: %w", f.flows, err)
	}
	return searches, nil
}

func (f *whyFlags) window(x *why.Finding) (w why.Window, err error) {
	if !x.First.IsZero() {
		w = why.Window{From: x.First.Add(-f.margin), To: x.Last.Add(f.margin)}
	}
	for _, t := range []struct {
		flag, text string
		to         *time.Time
	}{{"--since", f.since, &w.From}, {"--until", f.until, &w.To}} {
		if t.text == "" {
			continue
		}
		if *t.to, err = time.Parse(time.RFC3339, t.text); err != nil {
			return w, fmt.Errorf("%s %q: want a time such as 2026-11-25T17:40:00Z", t.flag, t.text)
		}
	}
	return w, nil
}
