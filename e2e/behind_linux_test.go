package e2e

import (
	"testing"
)

// TestARealNodeLivesBehindTheGateway: all that a node needs passes a gateway that knows nothing but the cluster's JSON.
func TestARealNodeLivesBehindTheGateway(t *testing.T) {
	c := start(t, setting{})
	c.startNode()
	c.ready()
	c.pod("app", []string{"ask"})
	c.runs("app")
	t.Log(c.kubectl(t.Context(), "logs", "app"))
	t.Log(c.kubectl(t.Context(), "exec", "app", "--", "/app", "env"))
	t.Log(c.kubectl(t.Context(), "get", "nodes,pods", "-A", "-o", "wide"))
}
