// Package e2e holds the tests in which everything is real: etcd, the API server, the controllers, the kubelet, containerd
// and runc, konnectivity, kubectl, and in front of them the gateway, as it runs anywhere else. It has no code of its own
// beside its tests.
//
// The control plane stands in the lab's internet, behind the name that `az aks show` tells, the node in the lab's first
// node, and nothing else joins them but the gateway. What runs here was built by scripts/test-bin; where it is missing,
// or where this is not root, the tests are skipped, which TIDEGATE_E2E=required forbids.
//
// Everything runs in process, mount and network namespaces of its own and in memory: nothing is left behind, however it
// ends, but empty cgroups after a kill -9, which the next run removes.
package e2e
