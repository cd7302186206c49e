package e2e

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A loss is what happens to a node when one of its cluster's rules is taken away.
type loss struct {
	rule string // of the catalogue
	name string // what the flow log has to name; "" is the API server
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
		switch {
		case err != nil: // the container is still being made
			return err
		case out == "":
			return errors.New("it says nothing yet")
		case !strings.Contains(out, ": I am "):
			said = out
		}
		return nil
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
