package web

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/flowlog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves both ways on loopback and returns their addresses.
func start(t *testing.T, s *Server) (management, control string) {
	t.Helper()
	s.Metrics = prometheus.NewRegistry()
	s.Flows = &flowlog.Log{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 3)
	go func() { done <- s.Flows.Run(ctx) }()
	var addrs []string
	for _, serve := range []func(context.Context, net.Listener) error{s.Serve, s.ServeControl} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, "http://"+l.Addr().String())
		go func() { done <- serve(ctx, l) }()
	}
	t.Cleanup(func() {
		cancel()
		for range 3 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return addrs[0], addrs[1]
}

func ask(t *testing.T, method, url, host string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestPages(t *testing.T) {
	checks := []Check{{Name: "rules"}, {Name: "queue"}}
	var reloaded error
	s := &Server{
		Ready:  func() []Check { return checks },
		Status: func(context.Context) any { return map[string]string{"policy": "abc"} },
		Reload: func(context.Context) error { return reloaded },
	}
	management, control := start(t, s)
	for _, tt := range []struct {
		why, method, url, host string
		code                   int
		body                   string
	}{
		{"it lives", "GET", management + "/livez", "", 200, "ok\n"},
		{"it is ready", "GET", management + "/readyz", "", 200, "ok\n"},
		{"each check", "GET", management + "/readyz?verbose", "", 200, "[+]rules ok\n[+]queue ok\nready\n"},
		{"another word for it", "GET", management + "/healthz", "", 200, "ok\n"},
		{"the status", "GET", management + "/status", "", 200, "\"policy\": \"abc\""},
		{"metrics", "GET", management + "/metrics", "", 200, ""},
		{"no flows", "GET", management + "/flows", "", 200, `"items": []`},
		{"localhost", "GET", management + "/livez", "localhost:9253", 200, "ok\n"},
		{"an IPv6 address", "GET", management + "/livez", "[::1]:9253", 200, "ok\n"},
		{"a page that was made to ask", "GET", management + "/status", "evil.example.org", 421, "ask by address\n"},
		{"nothing is changed here", "POST", management + "/reload", "", 404, ""},
		{"nor by another method", "POST", management + "/livez", "", 405, ""},
		{"an unknown page", "GET", management + "/", "", 404, ""},
		{"a reason of no list", "GET", management + "/flows?reason=bad", "", 400, `reason "bad"`},
		{"no action", "GET", management + "/flows?action=bad", "", 400, `action "bad"`},
		{"no client", "GET", management + "/flows?client=bad", "", 400, `client "bad"`},
		{"no name", "GET", management + "/flows?name=a..b", "", 400, "empty label"},
		{"no limit", "GET", management + "/flows?limit=0", "", 400, "limit"},
		{"a reload", "POST", control + "/reload", "", 200, "\"policy\": \"abc\""},
		{"a reload needs POST", "GET", control + "/reload", "", 405, ""},
		{"nobody from outside makes it collect", "POST", management + "/collect", "", 404, ""},
		{"what it needs of memory", "POST", control + "/collect", "", 200, `"goroutines": `},
		{"the control socket tells as well", "GET", control + "/status", "anything", 200, "abc"},
	} {
		code, body := ask(t, tt.method, tt.url, tt.host)
		if code != tt.code || !strings.Contains(body, tt.body) {
			t.Errorf("%s: %d %q, want %d %q", tt.why, code, body, tt.code, tt.body)
		}
	}
	checks = []Check{{Name: "rules"}, {"queue", errors.New("nobody reads it")}}
	if code, body := ask(t, "GET", management+"/readyz", ""); code != 503 || body != "[+]rules ok\n[-]queue: nobody reads it\nnot ready: 1 of 2 checks failed\n" {
		t.Errorf("not ready: %d %q", code, body)
	}
	reloaded = errors.New("gateway.yaml: line 3: unknown key")
	if code, body := ask(t, "POST", control+"/reload", ""); code != 422 || body != "gateway.yaml: line 3: unknown key\n" {
		t.Errorf("a failed reload: %d %q", code, body)
	}
}

func flow(src, name string, v egress.Verdict) egress.Flow {
	return egress.Flow{Verdict: v, Conn: egress.Conn{
		Proto: egress.HTTPS, Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort("20.1.2.3:443"), Name: egress.MustParseName(name),
	}}
}

func TestFlows(t *testing.T) {
	s := &Server{Ready: func() []Check { return nil }, Status: func(context.Context) any { return nil }}
	management, _ := start(t, s)

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, management+"/flows/watch?action=deny", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	events := bufio.NewScanner(resp.Body)
	events.Scan() // the comment that says it has begun

	s.Flows.Record(flow("10.0.0.1:1", "mcr.microsoft.com", egress.Verdict{Action: egress.Allow, Reason: egress.ByNameRule, Rule: &egress.Rule{ID: "core/mcr"}}))
	s.Flows.Record(flow("10.0.0.2:1", "evil.example.org", egress.Denied(egress.NameNotAllowed)))
	for events.Scan() && !strings.HasPrefix(events.Text(), "data: ") {
	}
	var seen egress.Flow
	if err := json.Unmarshal([]byte(strings.TrimPrefix(events.Text(), "data: ")), &seen); err != nil || seen.Conn.Name.String() != "evil.example.org" {
		t.Errorf("watched %q: %v", events.Text(), err)
	}
	for query, want := range map[string]int{
		"": 2, "?action=allow": 1, "?reason=name-not-allowed": 1, "?client=10.0.0.1": 1, "?name=mcr.microsoft.com": 1, "?rule=core/mcr": 1,
		"?rule=none": 0, "?limit=1": 1, "?action=allow&client=10.0.0.2": 0,
	} {
		_, body := ask(t, "GET", management+"/flows"+query, "")
		var list flowList
		if err := json.Unmarshal([]byte(body), &list); err != nil || len(list.Items) != want {
			t.Errorf("%q: %d flows, want %d: %v", query, len(list.Items), want, err)
		}
	}
}
