package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/lab"
)

// A loss is what happens to a node when one of its cluster's rules is taken away.
type loss struct {
	rule string // of the catalogue
	name string // what the flow log has to name
	what string // what people see first

	// try does what needs the rule, and returns what the program that failed says; "" if nothing failed. n tells one
	// try from another.
	try func(c *cluster, n int) string

	only string // the only way in which names reach the nodes; "" is both
}

// losses are the rows of the table in docs/troubleshooting.md.
var losses = []loss{
	{"core/mcr", "mcr.microsoft.com", "Pods stay in ErrImagePull and ImagePullBackOff; a new node does not boot (exit 50).", pull, ""},
	{"core/mcr-data", "eastus.data.mcr.microsoft.com", "The registry answers, the layers do not come: ErrImagePull.", pull, ""},
	{"core/packages-aks", "packages.aks.azure.com", "A new node cannot fetch its binaries.", fetch("https://packages.aks.azure.com/acs-mirror/healthz"), ""},
	{"core/packages-microsoft", "packages.microsoft.com", "A new node cannot install or update packages.", fetch("https://packages.microsoft.com/"), ""},
	{"core/binaries", "acs-mirror.azureedge.net", "An old node image does not boot.", fetch("https://acs-mirror.azureedge.net/"), ""},
	{"core/arm", "management.azure.com", "Load balancers stay pending, disks are not attached.", fetch("https://management.azure.com/subscriptions?api-version=2022-12-01"), ""},
	// The bare cluster is isolated, and may resolve this name for its private endpoints.
	{"core/entra", "login.microsoftonline.com", "Whatever needs a token of Azure's fails.", fetch("https://login.microsoftonline.com/"), "elsewhere"},
	{"ubuntu/archive", "azure.archive.ubuntu.com", "Nodes get no security updates.", aptUpdate, ""},
	{"ntp/time", "ntp.ubuntu.com", "An old node's clock drifts, and certificates stop being valid.", setClock, ""},
	{"core/apiserver", "", "A new node does not register (exit 51).", func(c *cluster, n int) string { return fetch("https://"+c.name+"/healthz")(c, n) }, "through"},
	{"core/apiserver", "", "`kubectl logs`, `exec` and webhooks fail while nodes stay Ready: the tunnel is down.", logs, "through"},
	{"core/apiserver-address", "", "With `apiServer: by-name`: a pod without the annotation cannot talk to the API server.", byAddress, "through"},
	{"core/apiserver", "", "A node that runs becomes NotReady.", renew, "through"}, // last: the node needs its time to come back
}

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

// named is the reason of the flow log's denial of what the loss is about.
func (b *bare) named(t *testing.T, l loss, before int) egress.Reason {
	t.Helper()
	name := l.name
	if name == "" {
		name = b.cluster.name
	}
	var reason egress.Reason
	b.until("the flow log names "+name, 10*time.Second, func() error {
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
	name := l.name
	if name == "" {
		name = b.cluster.name
	}
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

// knowsWhy gives the program the error, the flow log and the gateway's file, as one does who is on call.
func (b *bare) knowsWhy(t *testing.T, l loss, said string) {
	t.Helper()
	cmd := b.tidegate("why", said, "--flows", b.path(lab.FlowLogFile), "--config", lab.GatewayFile, "-o", "json")
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

// fetch asks for a URL as a node's own checks do.
func fetch(url string) func(*cluster, int) string {
	return func(c *cluster, _ int) string {
		out, err := c.curl("-v", "-o", "/dev/null", url)
		if err == nil {
			return ""
		}
		return out
	}
}

// pull has the kubelet pull an image that the node does not have.
func pull(c *cluster, n int) (said string) {
	c.t.Helper()
	p := appPod(fmt.Sprintf("pull-%d", n), "pause")
	p.Spec.Containers[0].Image = fmt.Sprintf("mcr.microsoft.com/tidegate/app-%d:1", n)
	c.create(p)
	c.until("the image is pulled or not", startTimeout, func() error {
		events, err := c.client.CoreV1().Events("default").List(c.t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + p.Name})
		if err != nil {
			return err
		}
		for _, e := range events.Items {
			switch {
			case e.Reason == "Pulled":
				return nil
			case e.Reason == "Failed" && strings.Contains(e.Message, "Failed to pull"):
				said = e.Message
				return nil
			}
		}
		return errors.New("no event says so")
	})
	now := int64(0)
	if err := c.client.CoreV1().Pods("default").Delete(c.t.Context(), p.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		c.t.Error(err)
	}
	return said
}

// aptUpdate fetches Ubuntu's list of packages with apt, which here is somebody else's system's.
func aptUpdate(c *cluster, n int) string {
	c.t.Helper()
	dir := fmt.Sprintf("apt-%d", n)
	c.mkdir(dir+"/lists/partial", dir+"/cache/archives/partial")
	c.write(dir+"/sources", []byte("deb [trusted=yes allow-insecure=yes] http://azure.archive.ubuntu.com/ubuntu jammy main\n"))
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "apt-get", "update", "-o", "Dir::Etc::sourcelist="+c.path(dir+"/sources"), "-o", "Dir::Etc::sourceparts=/dev/null",
		"-o", "Dir::State::lists="+c.path(dir+"/lists"), "-o", "Dir::Cache="+c.path(dir+"/cache"), "-o", "APT::Sandbox::User=root",
		"-o", "APT::Update::Error-Mode=any", "-o", "Acquire::Languages=none", "-o", "Acquire::Retries=0")
	out, _ := output(c.Node(1), cmd)
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "E: Failed to fetch") { // what it fetches and does not like is not the network's
			return line
		}
	}
	return ""
}

// setClock asks the time server, and leaves the clock alone.
func setClock(c *cluster, _ int) string {
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ntpdate", "-q", "-t", "2", "ntp.ubuntu.com")
	out, err := output(c.Node(1), cmd)
	if err == nil {
		return ""
	}
	return out
}

// logs asks for a pod's logs as kubectl does, through the tunnel. While the tunnel is only just gone the API server has
// other words for it, such as those of a connection that ends.
func logs(c *cluster, _ int) (said string) {
	c.t.Helper()
	c.until("kubectl logs works, or the tunnel is gone", startTimeout, func() error {
		out, err := c.kubectl(c.t.Context(), "logs", "first")
		if err != nil && !strings.Contains(out, "No agent available") {
			return err
		}
		if err != nil {
			said = out
		}
		return nil
	})
	return said
}

// byAddress is a pod without the webhook's variables, which says how it fares with the API server.
func byAddress(c *cluster, n int) (said string) {
	c.t.Helper()
	c.serve(fmt.Sprintf("proxy%d", n))
	name := fmt.Sprintf("by-address-%d", n)
	c.create(appPod(name, "once"))
	c.until("the pod has tried", startTimeout, func() error {
		out, err := c.kubectl(c.t.Context(), "logs", name)
		if err == nil && out == "" {
			err = errors.New("it says nothing yet")
		}
		if !strings.Contains(out, ": I am ") {
			said = out
		}
		return err
	})
	return said
}

// renew waits until the node is known to be well, or until the cluster has missed it.
func renew(c *cluster, _ int) (said string) {
	c.t.Helper()
	since := time.Now()
	c.until("the node renews its lease or is missed", startTimeout, func() error {
		cond, err := c.condition(c.t.Context())
		if err != nil {
			return err
		}
		if cond.Status != corev1.ConditionTrue {
			said = cond.Message
			return nil
		}
		lease, err := c.client.CoordinationV1().Leases("kube-node-lease").Get(c.t.Context(), nodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if lease.Spec.RenewTime == nil || lease.Spec.RenewTime.Before(&metav1.MicroTime{Time: since.Add(3 * time.Second)}) {
			return errors.New("its lease is old")
		}
		return nil
	})
	return said
}
