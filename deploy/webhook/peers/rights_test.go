package peers

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRightsAreTheLeast: the API server lets the webhook's service account do what
// the rotation of its certificate needs, and nothing beside it. With a
// certificate of somebody else's it may do nothing at all.
func TestRightsAreTheLeast(t *testing.T) {
	c := openCluster(t)
	c.install()
	for _, row := range []struct {
		what string
		can  bool
	}{
		{"get secrets/tidegate-webhook -n " + namespace, true},
		{"watch secrets -n " + namespace, true},
		{"update secrets/tidegate-webhook -n " + namespace, true},
		{"watch mutatingwebhookconfigurations", true},
		{"update mutatingwebhookconfigurations/tidegate-webhook", true},

		{"update secrets/other -n " + namespace, false},
		{"create secrets -n " + namespace, false},
		{"delete secrets/tidegate-webhook -n " + namespace, false},
		{"get secrets/tidegate-webhook -n default", false},
		{"list secrets -A", false},
		{"update mutatingwebhookconfigurations/other", false},
		{"create mutatingwebhookconfigurations", false},
		{"delete mutatingwebhookconfigurations/tidegate-webhook", false},
		{"get validatingwebhookconfigurations", false},
		{"get pods -A", false},
		{"create pods -n " + namespace, false},
		{"create serviceaccounts/token -n " + namespace, false},
		{"impersonate users", false},
	} {
		if got := c.can(row.what); got != row.can {
			t.Errorf("may %s: %v, want %v", row.what, got, row.can)
		}
	}

	c.kubectl(c.manifest, "delete", "--wait=false", "-f", "-")
	c.kubectl(c.command(nil, c.tidegate, "webhook", "manifests", "--api-server", apiName, "--image", "registry.example/tidegate:1",
		"--secret", "mine", "--create-namespace=false", "-n", "default"), "apply", "-f", "-")
	for _, what := range []string{"get secrets/mine -n default", "watch mutatingwebhookconfigurations", "update mutatingwebhookconfigurations/tidegate-webhook"} {
		if c.canAs("system:serviceaccount:default:tidegate-webhook", what) {
			t.Errorf("with a certificate of somebody else's it may %s", what)
		}
	}
}

// can asks whether the webhook's service account may do something.
func (c *cluster) can(what string) bool {
	c.t.Helper()
	return c.canAs("system:serviceaccount:"+namespace+":tidegate-webhook", what)
}

func (c *cluster) canAs(user, what string) bool {
	c.t.Helper()
	args := append([]string{"--kubeconfig", c.admin, "auth", "can-i", "--as", user}, strings.Fields(what)...)
	out, err := exec.Command(filepath.Join(c.tools, "kubectl"), args...).CombinedOutput()
	answer := lines(string(out))
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) || len(answer) == 0 {
		c.t.Fatalf("may it %s: %v", what, err)
	}
	switch answer[len(answer)-1] { // warnings come before
	case "yes":
		return true
	case "no":
		return false
	}
	c.t.Fatalf("may it %s: %s", what, out)
	return false
}
