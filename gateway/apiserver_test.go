package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tidegate.io/tidegate/egress"
)

func TestAPIServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := egress.MustParseName("p-1.hcp.westeurope.azmk8s.io")
		one, two := netip.MustParseAddr("20.9.9.1"), netip.MustParseAddr("20.9.9.2")
		now, ttl, fault := []netip.Addr{one}, time.Minute, error(nil)
		asked, failed := 0, 0
		var mu sync.Mutex // held but while time passes
		var changes []string
		a := &APIServers{
			Lookup: func(_ context.Context, n egress.Name) ([]netip.Addr, time.Duration, error) {
				mu.Lock()
				defer mu.Unlock()
				if n != name {
					t.Errorf("asked for %s", n)
				}
				asked++
				return now, ttl, fault
			},
			Changed: func(cluster string, addrs []netip.Addr) {
				mu.Lock()
				defer mu.Unlock()
				changes = append(changes, fmt.Sprint(cluster, addrs))
			},
			Failed: func(string, egress.Name, error) {
				mu.Lock()
				defer mu.Unlock()
				failed++
			},
		}
		a.Follow([]egress.Cluster{{Name: "prod", APIServer: name}, {Name: "plain"}})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- a.Run(ctx) }()

		pass := func(d time.Duration) {
			mu.Unlock()
			time.Sleep(d)
			synctest.Wait()
			mu.Lock()
		}
		mu.Lock()
		defer mu.Unlock()
		is := func(when string, addr netip.Addr, want bool) {
			t.Helper()
			if got := a.Current("prod", addr); got != want {
				t.Errorf("%s, %s is current: %v", when, addr, got)
			}
		}
		pass(time.Second)
		is("at first", one, true)
		is("at first", two, false)
		if a.Current("plain", one) || a.Current("", one) || asked != 1 {
			t.Errorf("another cluster has the address, or asked %d times", asked)
		}
		now = []netip.Addr{two}
		pass(time.Minute)
		is("in maintenance", one, true)
		is("in maintenance", two, true)
		fault = errors.New("SERVFAIL")
		pass(2 * time.Minute)
		is("while DNS is down", two, true)
		fault = nil
		pass(apiOverlap)
		is("after the overlap", one, false)
		is("after the overlap", two, true)
		if failed == 0 {
			t.Error("a failure was not told")
		}
		if want := "[prod[20.9.9.1] prod[20.9.9.1 20.9.9.2] prod[20.9.9.2]]"; fmt.Sprint(changes) != want {
			t.Errorf("told %v, want %s", changes, want)
		}

		asked, ttl = 0, 0
		pass(10 * time.Minute)
		if asked > 21 {
			t.Errorf("a TTL of 0 makes %d questions in ten minutes", asked)
		}
		ttl = 24 * time.Hour
		pass(apiAtLeast)
		asked = 0
		pass(10 * time.Minute)
		if asked < 2 {
			t.Errorf("a TTL of a day makes %d questions in ten minutes", asked)
		}
		a.Follow(nil)
		pass(time.Second)
		is("when it is not followed any more", two, false)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestAPIServersWithoutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		a := &APIServers{Lookup: func(ctx context.Context, _ egress.Name) ([]netip.Addr, time.Duration, error) {
			asked++
			if asked == 3 {
				return []netip.Addr{netip.MustParseAddr("20.9.9.1")}, time.Hour, nil
			}
			<-ctx.Done() // a resolver that says nothing
			return nil, 0, ctx.Err()
		}}
		a.Follow([]egress.Cluster{{Name: "prod", APIServer: egress.MustParseName("p.example.com")}})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go a.Run(ctx)
		time.Sleep(3 * (apiTimeout + apiRetry))
		synctest.Wait()
		if !a.Current("prod", netip.MustParseAddr("20.9.9.1")) {
			t.Errorf("asked %d times, and it is not known", asked)
		}
	})
}
