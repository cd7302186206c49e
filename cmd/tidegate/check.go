package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/net/http/httpproxy"

	"tidegate.io/tidegate/aks"
	"tidegate.io/tidegate/check"
	"tidegate.io/tidegate/egress"
)

// checkFlags are how a check is told what to try and from where.
type checkFlags struct {
	facts       factFlags
	plan        string
	instances   []string
	forbid      []string
	noForbidden bool

	ca, roots      string
	dns            []string
	proxy, noProxy string
	patience       time.Duration
	output         string
}

func checkCommand() *cobra.Command {
	var f checkFlags
	cmd := &cobra.Command{
		Use:   "check [ENDPOINT…]",
		Short: "From a node, a pod or a VM: is every endpoint reachable, and are forbidden ones not",
		Long: `Tries every endpoint of the cluster's rules, or those named, from this machine and
as a node would: TLS with the right name and a verified certificate, HTTP with the
answers that AKS's own checks accept, Konnectivity's ALPN, NTP, DNS over UDP and TCP,
through the HTTP proxy where one is set. An accepted connection is never proof. It
also tries what must be blocked. Each failure says where it broke, the likely cause,
and the rule.

Exit status: 0 all is well, 1 something failed, 2 asked wrongly, 3 nothing failed and
something could not be proven.`,
		Example: `  az aks show -g rg -n prod -o json | tidegate check --cluster -
  tidegate check https://mcr.microsoft.com:443 udp://ntp.ubuntu.com:123
  tidegate check manifest --cluster prod.json --image registry.example/tidegate:1.0 | kubectl apply -f -
  tidegate lab exec -- sh -c 'tidegate check --cloud public --region westeurope --ca $SSL_CERT_FILE'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := f.targets(cmd.InOrStdin(), args)
			if err != nil {
				return err
			}
			host, err := f.host(p)
			if err != nil {
				return err
			}
			for _, s := range host.Servers {
				p.Targets = append([]check.Target{{Kind: check.DNS, Addr: s.Addr(), Port: s.Port(), Why: "This machine's DNS server."}}, p.Targets...)
			}
			return f.run(cmd, host, p)
		},
	}
	f.addTargets(cmd)
	cmd.Flags().StringVar(&f.plan, "plan", "", "a `FILE` with what to try, as check manifest writes it; - is stdin")
	f.addHost(cmd)
	outputFlag(cmd, &f.output, "text", "json", "junit")
	cmd.AddCommand(checkManifestCommand())
	return cmd
}

// addHost adds the flags that say from where.
func (f *checkFlags) addHost(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.ca, "ca", "", "a `FILE` with the cluster's authority, which signs the API server's certificate (default: where nodes and pods have it)")
	cmd.Flags().StringVar(&f.roots, "roots", "", "a `FILE` with the authorities to trust in the place of this machine's")
	cmd.Flags().StringSliceVar(&f.dns, "dns", nil, "DNS servers to ask in the place of this machine's")
	cmd.Flags().StringVar(&f.proxy, "proxy", "", "the HTTP proxy's `URL` (default: HTTPS_PROXY and HTTP_PROXY, then the cluster's)")
	cmd.Flags().StringVar(&f.noProxy, "no-proxy", "", "names that do not go through it, by commas (default: NO_PROXY)")
	cmd.Flags().DurationVar(&f.patience, "patience", 4*time.Second, "how long to wait for each answer")
}

// addTargets adds the flags that say what to try.
func (f *checkFlags) addTargets(cmd *cobra.Command) {
	f.facts.add(cmd)
	cmd.Flags().StringSliceVar(&f.instances, "instance", nil, "names that exist below the rules' wildcards, to be tried for them")
	cmd.Flags().StringSliceVar(&f.forbid, "forbid", nil, "further endpoints that must be blocked")
	cmd.Flags().BoolVar(&f.noForbidden, "no-forbidden", false, "do not try what must be blocked")
}

// checkPlan is what to try, in the form that check manifest writes and --plan reads.
type checkPlan struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Title      string          `json:"title"`
	Targets    []check.Target  `json:"targets"`
	Skipped    []check.Skipped `json:"skipped"`
	Proxy      string          `json:"proxy,omitempty"`
	NoProxy    []string        `json:"noProxy,omitempty"`
}

const checkPlanKind = "CheckPlan"

// targets finds out what to try: from a plan, from the command line, or from the cluster's facts.
func (f *checkFlags) targets(stdin io.Reader, args []string) (checkPlan, error) {
	if f.plan != "" {
		if len(args) > 0 || f.facts.cluster != "" || f.facts.cloud != "" {
			return checkPlan{}, errors.New("--plan says already what to try; give no endpoints and no cluster with it")
		}
		return readFile(f.plan, stdin, readPlan)
	}
	p := checkPlan{APIVersion: apiVersion, Kind: checkPlanKind, Targets: []check.Target{}, Skipped: []check.Skipped{}}
	w := check.Wanted{}
	var err error
	if w.Instances, err = parseNames("--instance", f.instances); err != nil {
		return p, err
	}
	if len(args) > 0 {
		p.Title = "asked for"
		rule := egress.Rule{ID: "asked"}
		if rule.To, err = parseEndpoints(args); err != nil {
			return p, err
		}
		w.Rules = []egress.Rule{rule}
	} else if err := f.needs(stdin, &p, &w); err != nil {
		return p, err
	}
	targets, skipped := check.Targets(w)
	p.Targets, p.Skipped = append(p.Targets, targets...), append(p.Skipped, skipped...)
	return p, f.forbidden(&p, w.Rules, len(args) > 0)
}

// needs fills in what the cluster's facts say.
func (f *checkFlags) needs(stdin io.Reader, p *checkPlan, w *check.Wanted) error {
	c, res, err := f.facts.rules(stdin)
	if err != nil {
		return err
	}
	p.Title = checkTitle(c)
	w.APIServer, w.Region = res.APIServer, c.Region
	for _, r := range res.Rules {
		w.Rules = append(w.Rules, r.Rule)
	}
	for _, private := range res.Private {
		name, ok := private.Name.Exact()
		if !ok {
			continue
		}
		p.Targets = append(p.Targets, check.Private(name, private.Port, private.Why, name == res.APIServer)...)
	}
	for _, e := range c.Proxy.Endpoints {
		if p.Proxy == "" {
			p.Proxy, p.NoProxy = "http://"+strings.TrimPrefix(e.String(), "tcp://"), c.Proxy.Bypass
		}
	}
	return nil
}

func checkTitle(c aks.Cluster) string {
	words := []string{}
	for _, w := range []string{c.Name, c.Cloud.String(), c.Region} {
		if w != "" {
			words = append(words, clean(w))
		}
	}
	return strings.Join(words, " · ")
}

// forbidden adds what must be blocked. Where only endpoints were asked for, that is only what was asked to be.
func (f *checkFlags) forbidden(p *checkPlan, rules []egress.Rule, asked bool) error {
	if !f.noForbidden && !asked {
		p.Targets = append(p.Targets, check.Forbidden(rules)...)
	}
	to, err := parseEndpoints(f.forbid)
	if err != nil {
		return err
	}
	targets, skipped := check.Targets(check.Wanted{Rules: []egress.Rule{{ID: "--forbid", To: to}}})
	for _, t := range targets {
		t.Forbidden, t.Rules = true, nil
		p.Targets = append(p.Targets, t)
	}
	p.Skipped = append(p.Skipped, skipped...)
	return nil
}

func parseEndpoints(texts []string) ([]egress.Endpoint, error) {
	var out []egress.Endpoint
	for _, s := range texts {
		e, err := egress.ParseEndpoint(s)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

func parseNames(flag string, texts []string) ([]egress.Name, error) {
	var out []egress.Name
	for _, s := range texts {
		n, err := egress.ParseName(s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", flag, err)
		}
		out = append(out, n)
	}
	return out, nil
}

// clusterCAs are where the cluster's authority is in a pod and on a node.
var clusterCAs = []string{"/var/run/secrets/kubernetes.io/serviceaccount/ca.crt", "/etc/kubernetes/certs/ca.crt"}

// host is this machine, with what the flags say of it.
func (f *checkFlags) host(p checkPlan) (*check.Host, error) {
	h := &check.Host{Patience: f.patience}
	var err error
	if h.Servers, err = f.servers(); err != nil {
		return nil, err
	}
	if file, err := os.Open("/etc/hosts"); err == nil { // without one, names are in DNS only
		h.Hosts, err = check.ReadHosts(file)
		_ = file.Close()
		if err != nil {
			return nil, undecided(fmt.Errorf("read /etc/hosts: %w", err))
		}
	}
	if f.roots != "" {
		if h.Roots, err = readPool(f.roots); err != nil {
			return nil, err
		}
	}
	ca := f.ca
	for _, name := range clusterCAs {
		if _, err := os.Stat(name); err == nil && ca == "" {
			ca = name
		}
	}
	if ca != "" {
		if h.ClusterCA, err = readPool(ca); err != nil {
			return nil, err
		}
	}
	conf := f.proxyConfig(p)
	if conf.HTTPProxy != "" || conf.HTTPSProxy != "" {
		choose := conf.ProxyFunc()
		h.Proxy = func(u *url.URL) (*url.URL, error) { return choose(u) }
	}
	return h, nil
}

// proxyConfig is the proxy of the flags, of the environment, or of the cluster, in this order.
func (f *checkFlags) proxyConfig(p checkPlan) *httpproxy.Config {
	conf := httpproxy.FromEnvironment()
	if conf.HTTPProxy == "" && conf.HTTPSProxy == "" && p.Proxy != "" {
		conf = &httpproxy.Config{HTTPProxy: p.Proxy, HTTPSProxy: p.Proxy, NoProxy: strings.Join(p.NoProxy, ",")}
	}
	if f.proxy != "" {
		conf.HTTPProxy, conf.HTTPSProxy = f.proxy, f.proxy
	}
	if f.noProxy != "" {
		conf.NoProxy = f.noProxy
	}
	return conf
}

func (f *checkFlags) servers() ([]netip.AddrPort, error) {
	if len(f.dns) > 0 {
		as, err := addrs("--dns", f.dns)
		var servers []netip.AddrPort
		for _, a := range as {
			servers = append(servers, netip.AddrPortFrom(a, 53))
		}
		return servers, err
	}
	file, err := os.Open("/etc/resolv.conf")
	if err != nil {
		return nil, undecided(fmt.Errorf("find the DNS servers: %w; give them with --dns", err))
	}
	defer file.Close()
	return check.ReadResolvConf(file)
}

func readPool(name string) (*x509.CertPool, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: no certificate in PEM", name)
	}
	return pool, nil
}

// run tries everything, shows how far it is, and reports.
func (f *checkFlags) run(cmd *cobra.Command, h *check.Host, p checkPlan) error {
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	begin := time.Now()
	bar := progress{w: cmd.ErrOrStderr(), total: len(p.Targets), live: isTerminal(cmd.ErrOrStderr())}
	report := check.NewReport(h.Run(ctx, p.Targets, bar.done), p.Skipped)
	bar.clear()
	out := checkReport{title: p.Title, took: time.Since(begin), Report: report}
	if err := out.write(cmd.OutOrStdout(), f.output); err != nil {
		return err
	}
	switch report.Outcome {
	case check.Failed:
		return answerNo()
	case check.Unproven:
		return &exitError{code: exitUndecided}
	}
	return nil
}
