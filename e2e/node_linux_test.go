package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// nodeName is the node's, and of its box.
const nodeName = "node1"

// startNode starts containerd and the kubelet in the lab's first node. The kubelet registers with the API server by name,
// through the gateway; ready waits for that.
func (c *cluster) startNode() {
	c.t.Helper()
	c.mkdir("containerd", "containerd-state", "kubelet", "pods", "certs", "cni")
	c.write("containerd.toml", fmt.Appendf(nil, containerdConfig,
		c.path("containerd"), c.path("containerd-state"), c.path("containerd.sock"), pauseImage, c.path("certs.d"), c.path("cni")))
	c.write("cni/10-lab.conflist", []byte(cniConfig))
	containerd := part("containerd", "--config", c.path("containerd.toml"))
	path := "PATH=" + parts() + ":/usr/sbin:/usr/bin:/sbin:/bin" // where it finds the shim and runc
	containerd.Env = c.Environ([]string{path, "HOME=" + c.dir})
	c.run(c.Node(1), "containerd", containerd)

	c.identify("kubelet", "https://"+c.name, "system:node:"+nodeName, "system:nodes")
	c.write("kubelet.yaml", fmt.Appendf(nil, kubeletConfig,
		c.path("clients.pem"), c.path("containerd.sock"), cgroup(), c.path("resolv.conf"), c.path("pods")))
	kubelet := part("kubelet", "--config", c.path("kubelet.yaml"), "--kubeconfig", c.path("kubelet.kubeconfig"),
		"--root-dir", c.path("kubelet"), "--cert-dir", c.path("certs"), "--hostname-override", nodeName,
		"--node-ip", c.Node(1).Addrs[0].String())
	kubelet.Env = c.Environ([]string{path, "HOME=" + c.dir})
	c.until("containerd listens", startTimeout, func() error {
		_, err := os.Stat(c.path("containerd.sock"))
		return err
	})
	c.run(c.Node(1), "kubelet", kubelet)
}

// cniConfig is never used: all pods are in the node's network. Without one a node is not ready.
const cniConfig = `{"cniVersion": "1.0.0", "name": "lab", "plugins": [{"type": "loopback"}]}`

// containerdConfig wants two directories, the socket, the pause image and two more directories, of which the first need not be
// there, and says where registries have mirrors. oom_score_adj of less than the machine's own
// needs a power that even root may lack, and runc hides the reason.
const containerdConfig = `version = 3
root = %q
state = %q
[grpc]
address = %q
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = %q
[plugins."io.containerd.cri.v1.images".registry]
config_path = %q
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
conf_dir = %q
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "runc"
SystemdCgroup = false
`

// kubeletConfig wants the clients' authority, containerd's socket, the parent cgroup, resolv.conf and a directory. Times
// are scaled down with graceful.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: %q}}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix://%s
cgroupDriver: cgroupfs
cgroupRoot: /%s
cgroupsPerQOS: true
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
localStorageCapacityIsolation: false
enableControllerAttachDetach: false
makeIPTablesUtilChains: false
evictionHard: {memory.available: 1Mi, nodefs.available: "0%%", imagefs.available: "0%%"}
resolvConf: %s
podLogsDir: %s
nodeLeaseDurationSeconds: 4
nodeStatusUpdateFrequency: 1s
serializeImagePulls: false
registryPullQPS: 0
`

// condition is whether the node is ready, and why not.
func (c *cluster) condition(ctx context.Context) (corev1.NodeCondition, error) {
	node, err := c.client.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
	if err != nil {
		return corev1.NodeCondition{}, err
	}
	for _, cond := range node.Status.Conditions {
		if cond.Type == corev1.NodeReady {
			return cond, nil
		}
	}
	return corev1.NodeCondition{}, errors.New("the node does not say")
}

// ready waits until the node is.
func (c *cluster) ready() {
	c.t.Helper()
	c.until("the node is ready", startTimeout, func() error {
		cond, err := c.condition(c.t.Context())
		if err == nil && cond.Status != corev1.ConditionTrue {
			err = fmt.Errorf("it is not: %s: %s", cond.Reason, cond.Message)
		}
		return err
	})
}

// appPod is a pod of the app on the node, in its network.
func appPod(name string, args ...string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec: corev1.PodSpec{
			NodeName: nodeName, HostNetwork: true, DNSPolicy: corev1.DNSDefault,
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			Containers:  []corev1.Container{{Name: "app", Image: appImage, Args: args}},
		},
	}
}

// create makes a pod, as soon as its namespace has a service account.
func (c *cluster) create(p *corev1.Pod) {
	c.t.Helper()
	c.until("pod "+p.Name+" is created", startTimeout, func() error {
		_, err := c.client.CoreV1().Pods(p.Namespace).Create(c.t.Context(), p, metav1.CreateOptions{})
		return err
	})
}

// runs waits until the pod is running.
func (c *cluster) runs(name string) {
	c.t.Helper()
	c.until("pod "+name+" runs", startTimeout, func() error {
		pod, err := c.client.CoreV1().Pods("default").Get(c.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, s := range pod.Status.ContainerStatuses {
			if s.Ready {
				return nil
			}
		}
		return fmt.Errorf("%s: %s", pod.Status.Phase, c.events(c.t.Context(), name))
	})
}

// events is what the cluster says of an object, the last first.
func (c *cluster) events(ctx context.Context, name string) string {
	list, err := c.client.CoreV1().Events("").List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + name})
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for i := range list.Items {
		e := &list.Items[len(list.Items)-1-i]
		fmt.Fprintf(&b, "%s %s: %s\n", e.LastTimestamp.Format(time.TimeOnly), e.Reason, e.Message)
	}
	return b.String()
}
