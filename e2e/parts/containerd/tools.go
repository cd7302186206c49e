//go:build tools

// Package containerd pins the container runtime that the end-to-end tests run. It is
// apart from the other parts because it needs a newer k8s.io/cri-api than they do.
package containerd

import (
	_ "github.com/containerd/containerd/v2/cmd/containerd"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"
	_ "github.com/containerd/containerd/v2/cmd/ctr"
)
