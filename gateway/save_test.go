package gateway

import (
	"encoding/json"
	"fmt"
	"testing"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/wire"
)

// handOver makes another Follower go on, as another process would.
func (r *rig) handOver() {
	r.t.Helper()
	text, err := json.Marshal(r.f.Save(r.now))
	if err != nil {
		r.t.Fatal(err)
	}
	var saved Saved
	if err := json.Unmarshal(text, &saved); err != nil {
		r.t.Fatal(err)
	}
	r.f = New(r.f.Config)
	r.f.Restore(r.now, &saved)
}

// TestHandOverAtEveryStep: whenever another process takes over, the connection is decided as if none had.
func TestHandOverAtEveryStep(t *testing.T) {
	for _, row := range []struct {
		what  string
		name  egress.Name
		retry bool
		want  egress.Action
	}{
		{"a permitted name", good, false, egress.Allow},
		{"a denied name", evil, false, egress.Deny},
		{"a permitted name that is asked for again", good, true, egress.Allow},
		{"another name when asked again", good, true, egress.Deny},
	} {
		for step := range 12 {
			t.Run(fmt.Sprintf("%s/%d", row.what, step), func(t *testing.T) {
				r := newRig(t)
				n := 0
				then := func(uint32) {
					if n++; n == step {
						r.handOver()
					}
				}
				hello := clientHello(row.name)
				half := len(hello) / 2
				then(r.syn())
				then(r.synAck())
				then(r.client(wire.ACK, 0, nil))
				then(r.say(half, hello[half:])) // the second half first
				then(r.say(0, hello[:half]))
				if row.retry {
					retry := retryRequest()
					then(r.answer(len(hello), 0, retry))
					second := hello
					if row.want == egress.Deny {
						second = clientHello(evil)
					}
					then(r.say(len(hello), second[:half]))
					then(r.say(len(hello)+half, second[half:]))
					then(r.answer(len(hello)+len(second), len(retry), serverHello()))
				} else {
					then(r.answer(len(hello), 0, serverHello()))
				}
				if len(r.flows) != 1 || r.flows[0].Verdict.Action != row.want {
					t.Errorf("decided: %q", r.words())
				}
				r.after(recentFor)
				r.empty()
			})
		}
	}
}

// TestHandOverJudgesByTheNewPolicy: what was let through and is not confirmed yet is asked about again.
func TestHandOverJudgesByTheNewPolicy(t *testing.T) {
	r := newRig(t).handshake()
	hello := clientHello(good)
	r.say(0, hello)
	r.policy = policyOf(t, "core/mcr-data https://*.data.mcr.microsoft.com:443")
	r.handOver()
	if len(r.flows) != 1 || r.flows[0].Verdict.Reason != egress.NameNotAllowed {
		t.Errorf("decided: %q", r.words())
	}
}

// TestHandOverKeepsWhatIsDecided: a packet that waited behind the verdict is not a stranger's.
func TestHandOverKeepsWhatIsDecided(t *testing.T) {
	r := newRig(t).handshake()
	hello := clientHello(good)
	r.say(0, hello)
	r.answer(len(hello), 0, serverHello())
	r.handOver()
	if got := r.fate(r.say(0, hello)); got != "allowed" {
		t.Errorf("a retransmission is %s", got)
	}
}

// TestAnotherFormIsNotRestored: a process of another make begins anew.
func TestAnotherFormIsNotRestored(t *testing.T) {
	r := newRig(t).handshake()
	saved := r.f.Save(r.now)
	saved.Version++
	r.f = New(r.f.Config)
	r.f.Restore(r.now, &saved)
	if n := r.f.Stats().Connections; n != 0 {
		t.Errorf("%d connections are followed", n)
	}
}
