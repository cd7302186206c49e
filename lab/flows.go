//go:build linux

package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"tidegate.io/tidegate/egress"
)

// A FlowLog follows the gateway's log of decided connections: JSON lines, appended to a file. It may be used by any
// number of goroutines.
type FlowLog struct {
	path string

	mu    sync.Mutex
	read  int64
	flows []egress.Flow
}

// FollowFlows follows the file at path, which need not exist yet. Nothing is read until somebody asks.
func FollowFlows(path string) *FlowLog { return &FlowLog{path: path} }

// All returns every flow that has been logged so far.
func (l *FlowLog) All() ([]egress.Flow, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.catchUp()
	return l.flows[:len(l.flows):len(l.flows)], err
}

// catchUp reads the lines that are new. A line without its end is left for the next time.
func (l *FlowLog) catchUp() error {
	f, err := os.Open(l.path)
	if os.IsNotExist(err) {
		return nil
	} else if err != nil {
		return fmt.Errorf("read the flow log: %w", err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Seek(l.read, io.SeekStart); err != nil {
		return fmt.Errorf("read the flow log: %w", err)
	}
	for r := bufio.NewReader(f); ; {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return nil
		}
		l.read += int64(len(line))
		var flow egress.Flow
		if err := json.Unmarshal(bytes.TrimSpace(line), &flow); err != nil {
			return fmt.Errorf("flow log %s: %w", l.path, err)
		}
		l.flows = append(l.flows, flow)
	}
}

// find waits for a decision about t: for the first denial, if there must be one, for what follows a denied connection may
// be denied for another reason; else for whatever was decided last.
func (l *FlowLog) find(ctx context.Context, t interface{ knows(*egress.Flow) bool }, denial bool) (egress.Flow, bool) {
	ctx, cancel := context.WithTimeout(ctx, logGrace)
	defer cancel()
	next := 0
	var last *egress.Flow
	for {
		flows, err := l.All()
		if err != nil {
			return egress.Flow{}, false
		}
		for ; next < len(flows); next++ {
			f := &flows[next]
			if f.End || !t.knows(f) {
				continue
			}
			if last = f; denial && f.Verdict.Action == egress.Deny {
				return *f, true
			}
		}
		if last != nil && !denial {
			return *last, true
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			if last != nil {
				return *last, true
			}
			return egress.Flow{}, false
		}
	}
}
