package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"tidegate.io/tidegate/egress"
)

// gatewayStatus is what `gateway status -o json` prints and /status serves. Fields
// are only ever added.
type gatewayStatus struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Version    string            `json:"version"`
	Started    time.Time         `json:"started"`
	Policy     policyStatus      `json:"policy"`
	Reloads    reloadStatus      `json:"reloads"`
	Clusters   []clusterStatus   `json:"clusters"`
	Counts     map[string]uint64 `json:"decisions"` // by "action reason": decided by the process
	Refused    map[string]uint64 `json:"refused"`   // by reason: packets refused by the kernel's rules
	Running    int               `json:"running"`   // connections that run and were allowed by their names
	HTTP       int               `json:"httpConnections"`
	Queues     []queueStatus     `json:"queues"`
	Bindings   bindingStatus     `json:"bindings"`
	DNS        dnsStatus         `json:"dns"`
	Flows      flowStatus        `json:"flows"`
	ResetsLost uint64            `json:"resetsLost"`
	Mended     uint64            `json:"rulesMended"` // times that others had removed rules from the kernel
	Conntrack  conntrackStatus   `json:"conntrack"`
}

// conntrackStatus is how full the kernel's table of connections is: without room there are no new ones.
type conntrackStatus struct {
	Entries uint64 `json:"entries"`
	Most    uint64 `json:"most"`
}

type policyStatus struct {
	ID       string    `json:"id"`
	Loaded   time.Time `json:"loaded"`
	Rules    int       `json:"rules"`
	Notes    []string  `json:"notes,omitempty"`
	Warnings []string  `json:"warnings,omitempty"`
}

type reloadStatus struct {
	Applied uint64 `json:"applied"` // the first included
	Failed  uint64 `json:"failed"`
	Error   string `json:"error,omitempty"` // of the last, if it failed
}

type clusterStatus struct {
	Name           string       `json:"name"`
	Mode           string       `json:"mode"`
	Strict         bool         `json:"strict"` // its DNS passes the gateway: an address without a binding is refused
	APIServer      egress.Name  `json:"apiServer,omitzero"`
	APIServerAddrs []netip.Addr `json:"apiServerAddresses,omitempty"`
}

type queueStatus struct {
	Number      uint16 `json:"number"`
	Packets     uint64 `json:"packets"`
	Waiting     uint64 `json:"waiting"`
	Dropped     uint64 `json:"dropped"`
	Connections int    `json:"connections"`
	Bytes       int    `json:"bytes"`
	Sources     int    `json:"sources"`
}

type bindingStatus struct {
	Names   int    `json:"names"`
	Addrs   int    `json:"addresses"`
	Evicted uint64 `json:"evicted"`
}

type dnsStatus struct {
	Answers     map[string]uint64 `json:"answers"` // by RCODE
	Hits        uint64            `json:"hits"`
	Misses      uint64            `json:"misses"`
	Stale       uint64            `json:"stale"`
	Denied      uint64            `json:"denied"`
	Stripped    uint64            `json:"stripped"`
	LearnLate   uint64            `json:"learnLate"`
	LearnFailed uint64            `json:"learnFailed"`
	Upstreams   []upstreamStatus  `json:"upstreams"`
}

type upstreamStatus struct {
	Addr    netip.AddrPort `json:"address"`
	Up      bool           `json:"up"`
	Queries uint64         `json:"queries"`
	Errors  uint64         `json:"errors"`
}

type flowStatus struct {
	Written    uint64 `json:"written"`
	Lost       uint64 `json:"lost"`
	Suppressed uint64 `json:"suppressed"`
	Unwritten  uint64 `json:"unwritten"`
	KernelLost uint64 `json:"kernelLost"` // times that the kernel's own reports came too fast
}

func gatewayStatusCommand(path *string) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the running gateway does",
		Long: `Asks the gateway that runs with this file, by the socket in its state directory. It exits
1 when the last reload failed, and 3 when no gateway answers.`,
		Example: "  tidegate gateway status -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := askGateway(cmd.Context(), *path, http.MethodGet, "/status")
			if err != nil {
				return err
			}
			return printStatus(cmd.OutOrStdout(), output, s)
		},
	}
	outputFlag(cmd, &output, "text", "json")
	return cmd
}

func gatewayReloadCommand(path *string) *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Bring the gateway's file into force",
		Long: `Makes the running gateway read its file again: all of it comes into force in one step, or
nothing does and the error is printed. Live connections that the new policy denies are
cut, no others.`,
		Example: "  tidegate gateway reload",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := askGateway(cmd.Context(), *path, http.MethodPost, "/reload")
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "policy %s is in force, %d rules\n", s.Policy.ID, s.Policy.Rules)
			return nil
		},
	}
}

// askGateway speaks to the gateway that runs with a file.
func askGateway(ctx context.Context, path, method, page string) (s gatewayStatus, err error) {
	socket, err := controlSocket(path)
	if err != nil {
		return s, err
	}
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+page, nil)
	if err != nil {
		return s, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return s, undecided(fmt.Errorf("no gateway answers at %s: %w", socket, errors.Unwrap(err)))
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return s, undecided(err)
	}
	if resp.StatusCode != http.StatusOK {
		return s, &exitError{exitNo, errors.New(strings.TrimSpace(string(body)))}
	}
	return s, json.Unmarshal(body, &s)
}

// controlSocket finds the state directory in the gateway's file. A file with a
// mistake still has to say only that, for what runs is another.
func controlSocket(path string) (string, error) {
	dir, err := stateOf(path)
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, controlFile), nil
}

func printStatus(w io.Writer, output string, s gatewayStatus) error {
	if output == "json" {
		if err := writeJSON(w, s); err != nil {
			return err
		}
	} else if err := writeStatus(w, s); err != nil {
		return err
	}
	if s.Reloads.Error != "" {
		return answerNo()
	}
	return nil
}

func writeStatus(w io.Writer, s gatewayStatus) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("policy", "%s, %d rules, in force since %s", s.Policy.ID, s.Policy.Rules, s.Policy.Loaded.Format(time.DateTime))
	row("running", "since %s, %d configurations applied, %d refused", s.Started.Format(time.DateTime), s.Reloads.Applied, s.Reloads.Failed)
	if s.Reloads.Error != "" {
		row("last reload", "FAILED, the old policy is in force: %s", s.Reloads.Error)
	}
	if s.Mended > 0 {
		row("rules", "removed by others and put back %d times", s.Mended)
	}
	for _, c := range s.Clusters {
		dns := "its DNS is not taken to pass here"
		if c.Strict {
			dns = "its DNS passes here"
		}
		row("cluster "+c.Name, "%s; %s; API server %s %v", c.Mode, dns, c.APIServer, c.APIServerAddrs)
	}
	row("connections", "%d run, %d HTTP", s.Running, s.HTTP)
	for _, key := range slices.Sorted(maps.Keys(s.Counts)) {
		row("  "+key, "%d", s.Counts[key])
	}
	row("packets refused", "")
	for _, key := range slices.Sorted(maps.Keys(s.Refused)) {
		row("  "+key, "%d", s.Refused[key])
	}
	for _, q := range s.Queues {
		row(fmt.Sprintf("queue %d", q.Number), "%d packets, %d wait, %d dropped; %d connections of %d clients, %d bytes",
			q.Packets, q.Waiting, q.Dropped, q.Connections, q.Sources, q.Bytes)
	}
	row("bindings", "%d names, %d addresses, %d evicted", s.Bindings.Names, s.Bindings.Addrs, s.Bindings.Evicted)
	row("dns", "%d from the cache, %d asked, %d stale, %d denied", s.DNS.Hits, s.DNS.Misses, s.DNS.Stale, s.DNS.Denied)
	for _, u := range s.DNS.Upstreams {
		state := "up"
		if !u.Up {
			state = "DOWN"
		}
		row("  "+u.Addr.String(), "%s, %d questions, %d errors", state, u.Queries, u.Errors)
	}
	row("flow log", "%d written, %d suppressed, %d lost", s.Flows.Written, s.Flows.Suppressed, s.Flows.Lost+s.Flows.Unwritten)
	return t.Flush()
}
