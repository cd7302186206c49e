//go:build linux

package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
)

// Memory is what a gateway's process needs, in bytes, behind a collection of garbage.
type Memory struct {
	Heap, Stacks float64
	Goroutines   float64
}

// AskMemory lets the gateway with this state directory collect garbage and give what is free back to the machine, and returns
// what is left.
func AskMemory(ctx context.Context, state string) (m Memory, err error) {
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(state, "control.sock"))
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://gateway/collect", nil)
	if err != nil {
		return m, err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return m, fmt.Errorf("ask what it needs of memory: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return m, fmt.Errorf("ask what it needs of memory: %s", resp.Status)
	}
	return m, json.NewDecoder(resp.Body).Decode(&m)
}
