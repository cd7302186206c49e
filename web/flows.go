package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"tidegate.io/tidegate/egress"
)

const (
	defaultFlows = 100
	maxFlows     = 4096

	// beat keeps a watcher's connection from looking dead to what lies in between.
	beat = 15 * time.Second

	// writeWithin is how long a watcher may take to read what it is sent.
	writeWithin = 10 * time.Second
)

// filter is what a question about flows asks for.
type filter struct {
	action *egress.Action
	reason *egress.Reason
	client netip.Addr
	name   egress.Name
	rule   string
}

// readFilter reads the parameters action, reason, client, name and rule.
func readFilter(q url.Values) (f filter, err error) {
	if s := q.Get("action"); s != "" {
		f.action = new(egress.Action)
		if err := f.action.UnmarshalText([]byte(s)); err != nil {
			return f, err
		}
	}
	if s := q.Get("reason"); s != "" {
		r, err := egress.ParseReason(s)
		if err != nil {
			return f, err
		}
		f.reason = &r
	}
	if s := q.Get("client"); s != "" {
		if f.client, err = netip.ParseAddr(s); err != nil {
			return f, fmt.Errorf("client %q: want an address", s)
		}
	}
	if s := q.Get("name"); s != "" {
		if f.name, err = egress.ParseName(s); err != nil {
			return f, err
		}
	}
	f.rule = q.Get("rule")
	return f, nil
}

func (f *filter) match(flow *egress.Flow) bool {
	return (f.action == nil || *f.action == flow.Verdict.Action) &&
		(f.reason == nil || *f.reason == flow.Verdict.Reason) &&
		(!f.client.IsValid() || f.client == flow.Conn.Src.Addr()) &&
		(f.name.IsZero() || f.name == flow.Conn.Name) &&
		(f.rule == "" || flow.Verdict.Rule != nil && flow.Verdict.Rule.ID == f.rule)
}

// flowList is what /flows answers; fields are only ever added.
type flowList struct {
	APIVersion string        `json:"apiVersion"`
	Kind       string        `json:"kind"`
	Items      []egress.Flow `json:"items"` // the newest first
}

func (s *Server) flows(w http.ResponseWriter, r *http.Request) {
	f, err := readFilter(r.URL.Query())
	n := defaultFlows
	if text := r.URL.Query().Get("limit"); text != "" && err == nil {
		if n, err = strconv.Atoi(text); err != nil || n < 1 || n > maxFlows {
			err = fmt.Errorf("limit %q: want a number from 1 to %d", text, maxFlows)
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	items := s.Flows.Last(n, f.match)
	if items == nil {
		items = []egress.Flow{}
	}
	writeJSON(w, flowList{"tidegate.io/v1", "FlowList", items})
}

// watch sends flows as server-sent events (HTML Living Standard, section 9.2), one
// object of JSON each; an event "missed" says how many were left out.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) {
	f, err := readFilter(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	watcher := s.Flows.Watch(r.Context(), f.match)
	if watcher == nil {
		http.Error(w, "too many watch already", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	send := func(format string, args ...any) bool {
		_ = out.SetWriteDeadline(time.Now().Add(writeWithin)) // without it a slow watcher only misses flows
		_, err := fmt.Fprintf(w, format, args...)
		return err == nil && out.Flush() == nil
	}
	tick := time.NewTicker(beat)
	defer tick.Stop()
	told, going := uint64(0), send(": flows\n\n")
	for going {
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
			going = send(":\n\n")
		case flow := <-watcher.Flows:
			if missed := watcher.Missed(); missed > told {
				going = send("event: missed\ndata: %d\n\n", missed-told)
				told = missed
			}
			if b, err := json.Marshal(flow); err == nil {
				going = going && send("data: %s\n\n", b)
			}
		}
	}
}
