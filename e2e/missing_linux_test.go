package e2e

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/lab"
)

// ways are the two in which names reach the nodes.
var ways = []struct{ id, dns, what string }{
	{"through", "gateway", "through the gateway"},
	{"elsewhere", "elsewhere", "elsewhere"},
}

// TestWhatAMissingRuleLooksLike takes each rule away in turn, with DNS through the gateway and elsewhere. What follows is
// the failure that people know, the flow log names it, explain and why lead back to the rule, and the table in
// docs/troubleshooting.md says the same.
func TestWhatAMissingRuleLooksLike(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for nodes to be missed")
	}
	b, parent := openBare(t), testing.TB(t)
	var seen []sight
	tries := 0
	for _, l := range losses {
		for _, way := range ways {
			if l.only != "" && l.only != way.id {
				continue
			}
			t.Run(strings.ReplaceAll(l.rule, "/", "-")+"/"+way.id, func(t *testing.T) {
				b.t = t
				defer func() { b.t = parent }()
				b.enforce(way.dns, "")
				b.recovers()
				tries++
				if said := l.try(b.cluster, tries); said != "" {
					t.Fatalf("control: with all rules it fails too: %s", said)
				}
				b.enforce(way.dns, l.rule)
				before := len(b.decisions(t))
				tries++
				said := l.try(b.cluster, tries)
				if said == "" {
					t.Fatal("nothing fails without it")
				}
				s := sight{loss: l, dns: way.what, says: plain(said), reason: b.named(t, l, before)}
				seen = append(seen, s)
				b.explains(t, l, s)
				b.knowsWhy(t, l, said)
			})
		}
	}
	holdDocument(t, seen)
}

// A bare cluster's JSON asks for no rule, so that the rules are the gateway's own and can be taken away.
type bare struct {
	*cluster
	rules []rule
}

type rule struct {
	ID string   `json:"id"`
	To []string `json:"to"`
}

func openBare(t *testing.T) *bare {
	t.Helper()
	need(t)
	b := &bare{rules: rulesOf(t, string(lab.Example))}
	isolated := strings.NewReplacer(`"artifactSource": "Direct"`, `"artifactSource": "Cache"`,
		`"outboundType": "userDefinedRouting"`, `"outboundType": "none"`).Replace(string(lab.Example))
	b.cluster = start(t, setting{aks: isolated, more: b.without(""), tunnel: konnectivity})
	b.startAgent()
	for _, l := range losses {
		if l.name != "" { // one address, so that DNS elsewhere and the gateway's own are of one mind
			b.Zone.Move(l.name, b.Zone.Addrs(l.name)[0])
		}
	}
	b.startNode()
	b.ready()
	b.create(appPod("first", "pause"))
	b.runs("first") // and the pause image is there
	return b
}

// rulesOf is what the program says that a cluster needs, with an old node's clock.
func rulesOf(t *testing.T, aks string) []rule {
	t.Helper()
	cmd := (&cluster{}).tidegate("rules", "--cluster", "-", "--with", "old-nodes", "-o", "json")
	cmd.Stdin = strings.NewReader(aks)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ Items []rule }
	if err := json.Unmarshal(out, &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Items
}

// without is the end of the gateway's file, with every rule but one and those that need the same.
func (b *bare) without(id string) string {
	var gone []string
	for _, r := range b.rules {
		if r.ID == id {
			gone = r.To
		}
	}
	kept := slices.DeleteFunc(slices.Clone(b.rules), func(r rule) bool {
		return slices.ContainsFunc(r.To, func(to string) bool { return slices.Contains(gone, to) })
	})
	text, err := json.Marshal(kept)
	if err != nil {
		panic(err) // of strings
	}
	return "rules: " + string(text) + "\n"
}

// enforce has the gateway take another file, and the node learn names in another way.
func (b *bare) enforce(dns, missing string) {
	b.t.Helper()
	b.DNSElsewhere(dns == "elsewhere")
	loaded := func() int {
		text, _ := os.ReadFile(b.path("gateway.log"))
		return strings.Count(string(text), "msg=reloaded")
	}
	before := loaded()
	file := lab.GatewayConfig("lab", b.without(missing))
	file = strings.Replace(file, "    aks:", "    dns: "+dns+"\n    aks:", 1)
	if missing == "core/apiserver-address" { // is not a rule of names, but a word
		file = strings.Replace(file, "    aks:", "    apiServer: by-name\n    aks:", 1)
	}
	b.write(lab.GatewayFile, []byte(file))
	if err := b.SignalGateway(syscall.SIGHUP); err != nil {
		b.t.Fatal(err)
	}
	b.until("the gateway has read its file again", startTimeout, func() error {
		if loaded() == before {
			return errors.New("it has not")
		}
		return nil
	})
}

// recovers waits until what a missing rule has broken works again.
func (b *bare) recovers() {
	b.t.Helper()
	b.ready()
	b.until("the tunnel is there", startTimeout, func() error {
		_, err := b.kubectl(b.t.Context(), "logs", "first")
		return err
	})
}

// about is the name that a loss is about.
func (b *bare) about(l loss) string { return cmp.Or(l.name, b.name) }

// named is the reason of the flow log's denial of what the loss is about.
func (b *bare) named(t *testing.T, l loss, before int) egress.Reason {
	t.Helper()
	name := b.about(l)
	var reason egress.Reason
	b.until("the flow log names "+name, startTimeout, func() error {
		for _, f := range b.decisions(t)[before:] {
			about := f.Conn.Name.String() == name || f.Conn.Dst.Addr() == b.Zone.Addrs(name)[0] || slices.ContainsFunc(f.Conn.Bound, func(n egress.Name) bool { return n.String() == name })
			if f.Verdict.Action == egress.Deny && f.Verdict.Reason != egress.PolicyChanged && about {
				reason = f.Verdict.Reason
				return nil
			}
		}
		return fmt.Errorf("it has %v", b.denials(t))
	})
	return reason
}

// found is the rule that the name of what is lost leads to: the API server's address has the API server's name.
func (l loss) found() string { return strings.TrimSuffix(l.rule, "-address") }

// explains asks the program about what the flow log names.
func (b *bare) explains(t *testing.T, l loss, s sight) {
	t.Helper()
	name := b.about(l)
	out, err := b.tidegate("explain", name, "-o", "json").Output()
	var doc struct{ Items []struct{ ID string } }
	if err == nil {
		err = json.Unmarshal(out, &doc)
	}
	if err != nil || !slices.ContainsFunc(doc.Items, func(i struct{ ID string }) bool { return i.ID == l.found() }) {
		t.Errorf("explain %s does not lead to %s: %v\n%s", name, l.rule, err, out)
	}
	if s.reason.Advice() == "" {
		t.Errorf("reason %s says nothing of what to do", s.reason)
	}
}

// knowsWhy gives the program the error, the flow log and the gateway's file, as one does who is on call. The cluster's file is
// one that is not isolated: of an isolated cluster no rule is ever said to be missing.
func (b *bare) knowsWhy(t *testing.T, l loss, said string) {
	t.Helper()
	ordinary, err := os.ReadFile("../lab/example.json")
	if err != nil {
		t.Fatal(err)
	}
	b.write("ordinary.json", ordinary)
	cmd := b.tidegate("why", said, "--flows", b.path(lab.FlowLogFile), "--config", lab.GatewayFile, "--cluster", b.path("ordinary.json"), "-o", "json")
	cmd.Dir = b.dir
	out, err := cmd.Output()
	var doc struct {
		Items []struct {
			Reaching []struct {
				Rules  []string
				Denied string
			}
			Denials []struct{ Reason string }
		}
	}
	if err == nil {
		err = json.Unmarshal(out, &doc)
	}
	for _, i := range doc.Items {
		for _, r := range i.Reaching {
			if slices.Contains(r.Rules, l.found()) && (r.Denied != "" || len(i.Denials) > 0) {
				return
			}
		}
	}
	t.Errorf("why does not find that the gateway denies %s: %v\n%s\n%s", l.rule, err, said, out)
}
