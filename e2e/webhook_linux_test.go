package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// webhookName is the namespace and the name of everything that belongs to the webhook.
const webhookName = "tidegate-webhook"

// webhookPort is where the webhook listens on the node.
const webhookPort = 9443

// startWebhook applies the webhook's own manifests, and runs what their pods would run as a process on the node: no
// registry has its image. The API server reaches it through the tunnel.
func (c *cluster) startWebhook() {
	c.t.Helper()
	host := webhookName + "." + webhookName + ".svc"
	cert, key := c.pki.sign(host, nil, []string{host})
	c.mkdir("webhook")
	c.write("webhook/tls.crt", cert)
	c.write("webhook/tls.key", key)
	manifests := c.tidegate("webhook", "manifests", "--cluster", c.path("cluster.json"), "--image", "mcr.microsoft.com/tidegate:1",
		"--secret", webhookName, "--ca-bundle", c.path("clients.pem"))
	text, err := manifests.Output()
	if err != nil {
		c.t.Fatalf("webhook manifests: %v", err)
	}
	c.write("webhook.yaml", text)
	c.must(c.kubectl(c.t.Context(), "apply", "--validate=strict", "-f", c.path("webhook.yaml")))

	node := c.Node(1).Addrs[0]
	hook := c.tidegate("webhook", "run", "--cluster", c.path("cluster.json"), "--cert-dir", c.path("webhook"),
		"--listen", netip.AddrPortFrom(node, webhookPort).String(), "--management", netip.AddrPortFrom(node, 8080).String())
	c.run(c.Node(1), "webhook", hook)
	c.until("the webhook listens", startTimeout, func() error {
		conn, err := c.Node(1).Dial(c.t.Context(), "tcp", netip.AddrPortFrom(node, webhookPort))
		if err == nil {
			conn.Close()
		}
		return err
	})
	c.publish(node)
}

// publish tells the API server where the webhook's Service ends, and waits until it knows.
func (c *cluster) publish(node netip.Addr) {
	c.t.Helper()
	ctx := c.t.Context()
	service, err := c.client.CoreV1().Services(webhookName).Get(ctx, webhookName, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	port, ready := int32(webhookPort), true
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: webhookName, Labels: map[string]string{discoveryv1.LabelServiceName: webhookName}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{node.String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
		Ports:       []discoveryv1.EndpointPort{{Name: &service.Spec.Ports[0].Name, Port: &port}},
	}
	if _, err := c.client.DiscoveryV1().EndpointSlices(webhookName).Create(ctx, slice, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	c.until("the webhook is called", startTimeout, func() error {
		pod, err := c.tryPod(ctx, annotated("trial", "pause"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil && len(pod.Spec.Containers[0].Env) == 0 {
			err = fmt.Errorf("a pod that asks for the name is not given it")
			time.Sleep(100 * time.Millisecond)
		}
		return err
	})
}

// annotated is a pod that asks for the API server's name.
func annotated(name string, args ...string) *corev1.Pod {
	p := appPod(name, args...)
	p.Annotations = map[string]string{"kubernetes.azure.com/set-kube-service-host-fqdn": "true"}
	return p
}

func (c *cluster) tryPod(ctx context.Context, p *corev1.Pod, o metav1.CreateOptions) (*corev1.Pod, error) {
	return c.client.CoreV1().Pods(p.Namespace).Create(ctx, p, o)
}
