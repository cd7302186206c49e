package egress

import "testing"

// TestSlimAndWhole: what was left out comes back, for a policy that is as large as the
// rules of every kind make it.
func TestSlimAndWhole(t *testing.T) {
	p := policy(t, prodAndDev(), houseRules...)
	slim := p.Slim()
	for i, r := range slim.Rules() {
		if len(r.To) > 0 || r.Content() != p.Rules()[i].Content() {
			t.Errorf("rule %s has %d endpoints, or another content", r.ID, len(r.To))
		}
	}
	whole := slim.Whole()
	again, err := Compile(whole.Rules(), whole.Clusters())
	if err != nil {
		t.Fatal(err)
	}
	if slim.ID() != p.ID() || again.ID() != p.ID() {
		t.Errorf("ids %s, slim %s, and of the whole again %s", p.ID(), slim.ID(), again.ID())
	}
	if p.Whole() != p {
		t.Error("a whole policy was rebuilt")
	}
}
