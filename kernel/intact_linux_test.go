package kernel

import (
	"context"
	"testing"
	"time"

	"tidegate.io/tidegate/internal/netns/netnstest"
)

func TestRulesThatOthersRemoveAreMissed(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, true)
	tunnel := rule(t, "tunnel", nil, "tcp://20.40.0.0/24:9000", "tcp://db.example:22")
	rs := b.load(nil, tunnel)
	b.echo(b.web, 9001)
	var w *Watch
	must(t, b.gateway.Do(func() (err error) { w, err = OpenWatch(); return err }))
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	told, done := make(chan bool, 1), make(chan error, 1)
	go func() {
		done <- w.Run(ctx, func() {
			select {
			case told <- true:
			default:
			}
		})
	}()
	defer func() { cancel(); must(t, <-done) }()
	for _, row := range []struct {
		name   string
		do     []string
		intact bool
	}{
		{"nothing", nil, true},
		{"another's table", []string{"add", "table", "ip", "other"}, true},
		{"one chain's rules", []string{"flush", "chain", "inet", "tidegate", "denied"}, false},
		{"all rules", []string{"flush", "table", "inet", "tidegate"}, false},
		{"the table", []string{"delete", "table", "inet", "tidegate"}, false},
		{"everything", []string{"flush", "ruleset"}, false},
	} {
		select {
		case <-told: // of what Apply did
		default:
		}
		if row.do != nil {
			nft(t, b.gateway, "", row.do...)
		}
		intact, err := b.table.Intact()
		must(t, err)
		if intact != row.intact {
			t.Errorf("%s: intact %t", row.name, intact)
		}
		if !row.intact {
			select {
			case <-told:
			case <-time.After(patience):
				t.Errorf("%s: nobody was told", row.name)
			}
		}
		if row.name == "everything" && b.reach("tcp", at(webAddrs[0], 9001)) != nil {
			t.Error("control: without the rules nothing is forwarded, so that they need not be put back")
		}
		apply(t, b.gateway, b.table, rs, nil)
		if b.reach("tcp", at(webAddrs[0], 9001)) == nil {
			t.Errorf("%s: put back, the rules refuse nothing", row.name)
		}
		if intact, err := b.table.Intact(); !intact || err != nil {
			t.Errorf("%s: put back, intact %t, %v", row.name, intact, err)
		}
	}
	must(t, b.table.Open([]Element{{Set: "open.prod.tcp.22.v4", Addr: rs.Sets[0].Ranges[0].First, Mark: NewMark(Allowed, 1), Timeout: patience}}))
	if intact, err := b.table.Intact(); !intact || err != nil {
		t.Errorf("after an address was opened: intact %t, %v", intact, err)
	}
}
