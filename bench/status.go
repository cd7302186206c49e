//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// status is what the running gateway tells of itself, as far as it is looked at here.
type status struct {
	Policy struct {
		ID    string `json:"id"`
		Rules int    `json:"rules"`
	} `json:"policy"`
	Reloads struct {
		Applied int64 `json:"applied"`
	} `json:"reloads"`
	Queues []struct {
		Connections int `json:"connections"`
		Bytes       int `json:"bytes"`
	} `json:"queues"`
	Flows struct {
		Written    int64 `json:"written"`
		Lost       int64 `json:"lost"`
		Unwritten  int64 `json:"unwritten"`
		KernelLost int64 `json:"kernelLost"`
		Suppressed int64 `json:"suppressed"`
	} `json:"flows"`
	ResetsLost int64 `json:"resetsLost"`
	Running    int   `json:"running"`
}

// fetch asks the gateway of the world, from inside of its own namespace.
func (w *world) fetch(path string, into any) error {
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, _ string) (c net.Conn, err error) {
		err = w.gateway.Do(func() error {
			var d net.Dialer
			c, err = d.DialContext(ctx, network, management)
			return err
		})
		return c, err
	}}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+management+path, nil)
	if err != nil {
		return err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the gateway answers %s", resp.Status)
	}
	if into == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	return json.NewDecoder(resp.Body).Decode(into)
}
