//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// startTimeout is how long a gateway may take until it is ready.
const startTimeout = 20 * time.Second

// A process is a running gateway.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // valid then
}

// runs reports whether it has not ended.
func (p *process) runs() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// ended is how the process ended.
func (p *process) ended() error {
	if p.err == nil {
		return errors.New("exit status 0")
	}
	return p.err
}

// KillGateway kills the gateway's process as kill -9 does and waits for its end; nothing is cleaned up after it.
func (l *Lab) KillGateway() { l.stopGateway(syscall.SIGKILL) }

// StopGateway asks the gateway to end, as systemd does, and waits for it.
func (l *Lab) StopGateway() { l.stopGateway(syscall.SIGTERM) }

func (l *Lab) stopGateway(s syscall.Signal) {
	l.mu.Lock()
	p := l.gateway
	l.gateway = nil
	l.mu.Unlock()
	if p != nil {
		_ = p.cmd.Process.Signal(s)
		<-p.done
	}
}

// SignalGateway sends the running gateway a signal, such as SIGHUP for a reload.
func (l *Lab) SignalGateway(s syscall.Signal) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gateway == nil {
		return errors.New("signal the gateway: it does not run")
	}
	return l.gateway.cmd.Process.Signal(s)
}

// GatewayPID is the process of the running gateway, or 0.
func (l *Lab) GatewayPID() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gateway == nil {
		return 0
	}
	return l.gateway.cmd.Process.Pid
}

// RestartGateway starts the gateway after KillGateway or StopGateway and waits until it is ready.
func (l *Lab) RestartGateway(ctx context.Context) error {
	p, err := l.startGateway()
	if err != nil {
		return err
	}
	return l.waitReady(ctx, p)
}

// ReplaceGateway starts the gateway with further arguments beside the one that runs, which has to end by itself, and
// waits until it has and the new one is ready.
func (l *Lab) ReplaceGateway(ctx context.Context, args ...string) error {
	l.mu.Lock()
	old := l.gateway
	l.mu.Unlock()
	p, err := l.startGateway(args...)
	if err != nil {
		return err
	}
	if old != nil {
		select {
		case <-old.done:
		case <-p.done:
			return fmt.Errorf("the new gateway ended: %w:\n%s", p.ended(), l.gatewayLog())
		case <-time.After(startTimeout):
			return fmt.Errorf("the old gateway did not end:\n%s", l.gatewayLog())
		}
	}
	return l.waitReady(ctx, p)
}

func (l *Lab) startGateway(args ...string) (*process, error) {
	out, err := os.OpenFile(filepath.Join(l.conf.Dir, "gateway.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the gateway's log: %w", err)
	}
	defer func() { _ = out.Close() }()
	cmd := l.conf.Gateway()
	cmd.Args = append(cmd.Args, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = l.conf.Dir, out, out
	if err := l.startKept(cmd); err != nil {
		return nil, fmt.Errorf("start the gateway: %w", err)
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() { p.err = cmd.Wait(); close(p.done) }()
	l.mu.Lock()
	l.gateway = p
	l.mu.Unlock()
	return p, nil
}

// startKept starts a process with the keeper of the one before, or where that runs with one of its own, as it has that is
// another unit.
func (l *Lab) startKept(cmd *exec.Cmd) error {
	if l.conf.Unkept {
		return l.room.start(cmd)
	}
	k, err := l.keeper()
	if err != nil {
		return err
	}
	return k.Start(cmd, l.room.start)
}

func (l *Lab) keeper() (*Keeper, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.keepers) == 0 || l.gateway != nil && l.gateway.runs() {
		k, err := NewKeeper()
		if err != nil {
			return nil, err
		}
		l.keepers = append(l.keepers, k)
	}
	return l.keepers[len(l.keepers)-1], nil
}

func (l *Lab) waitReady(ctx context.Context, p *process) error {
	if l.conf.Ready == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		err := l.conf.Ready(ctx, l)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("the gateway ended: %w:\n%s", p.ended(), l.gatewayLog())
		case <-ctx.Done():
			return fmt.Errorf("the gateway is not ready: %w:\n%s", err, l.gatewayLog())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// gatewayLog returns the end of what the gateway wrote.
func (l *Lab) gatewayLog() string {
	const end = 4 << 10
	text, _ := os.ReadFile(filepath.Join(l.conf.Dir, "gateway.log"))
	return string(text[max(0, len(text)-end):])
}
