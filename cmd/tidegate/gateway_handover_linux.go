package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/gateway"
)

var (
	errHandedOver = errors.New("another process has taken over")
	errTakenBack  = errors.New("another process wanted to take over, and has not")
)

const (
	// handoverVersion is the form of what is handed over. Another one is refused: the
	// administrator then restarts.
	handoverVersion = 1

	// answersWithin is how long questions to upstreams may take that are under way: a
	// little more than they take at most.
	answersWithin = 2500 * time.Millisecond

	// readyWithin is how long the other process may take until it serves. Meanwhile packets
	// wait in the kernel's queues and new connections in the sockets' backlogs.
	readyWithin = time.Minute

	// lingerFor is how long requests of the HTTP proxy may still take; what is older ends, as
	// at a stop.
	lingerFor = 10 * time.Second

	// maxHandover bounds what is read from the other process: followers save some MiB each.
	maxHandover = 256 << 20
)

// handover is what one process tells the next, beside the descriptors.
type handover struct {
	Version   int                       `json:"version"`
	Sockets   []string                  `json:"sockets"` // what the descriptors are, in their order
	Followers map[uint16]*gateway.Saved `json:"followers"`
}

// handOver waits for a process that wants to take over, and gives it everything. stop ends
// what decides, and waits for that. It returns when ctx is done, and when its own process has
// to end, or to begin again.
func (b *box) handOver(ctx context.Context, l *net.UnixListener, stop func()) error {
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	for {
		c, err := l.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			time.Sleep(100 * time.Millisecond) // out of descriptors
			continue
		}
		err = b.greetSuccessor(c)
		if err == nil {
			err = b.give(ctx, c, stop)
		} else {
			b.log.Error("a process wanted to take over", "err", err)
			err = nil
		}
		_ = c.Close()
		if err != nil {
			return err
		}
	}
}

// greeting is what the other process says first.
var greeting = fmt.Sprintf("tidegate takeover %d\n", handoverVersion)

// greetSuccessor reads who is there. The socket's file is its owner's alone already.
func (b *box) greetSuccessor(c *net.UnixConn) error {
	_ = c.SetDeadline(time.Now().Add(readyWithin))
	said := make([]byte, len(greeting))
	if _, err := io.ReadFull(c, said); err != nil {
		return err
	}
	if string(said) != greeting {
		return fmt.Errorf("it says %q", said)
	}
	return nil
}

// give ends what decides, and hands over.
func (b *box) give(ctx context.Context, c *net.UnixConn, stop func()) error {
	h := handover{Version: handoverVersion, Followers: map[uint16]*gateway.Saved{}}
	left, err := b.estateFor(&h) // while everything is open
	if err != nil {
		b.log.Error("hand over", "err", err)
		return nil
	}
	b.log.Info("handing over")
	b.pauseClients()
	b.finishAnswers(ctx)
	stop()                        // and with it reloads, and the keeping of the rules
	signal.Ignore(syscall.SIGHUP) // which is for the other
	b.state.giveUp()
	for _, q := range b.queues {
		saved := q.follower.Save(time.Now())
		if err := q.queue.Flush(); err != nil {
			b.log.Error("hand over", "err", err)
		}
		h.Followers[q.number] = &saved
	}
	if err := send(c, &h, left); err != nil {
		return b.takeBack(left, err)
	}
	_ = c.SetDeadline(time.Now().Add(readyWithin))
	if _, err := io.ReadFull(c, make([]byte, len(ready))); err != nil {
		return b.takeBack(left, err)
	}
	left.drop()
	if err := b.forgetTable(); err != nil { // the other has it kept for itself
		b.log.Error("hand over", "err", err)
	}
	b.log.Info("handed over", "requests", b.http.Conns())
	b.linger(ctx)
	return errHandedOver
}

// ready is what the other process says in the end.
const ready = "ready\n"

// takeBack makes this process begin again with what it wanted to hand over.
func (b *box) takeBack(left *estate, err error) error {
	b.left = left
	return fmt.Errorf("%w: %w", errTakenBack, err)
}

// finishAnswers waits until the questions that clients have asked are answered, and learned.
func (b *box) finishAnswers(ctx context.Context) {
	for end := time.Now().Add(answersWithin); b.dns.Pending() > 0 && ctx.Err() == nil && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

// linger waits for the requests that the HTTP proxy has begun.
func (b *box) linger(ctx context.Context) {
	for end := time.Now().Add(lingerFor); b.http.Conns() > 0 && ctx.Err() == nil && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
}

// send sends the descriptors, with the length of what follows, and that.
func send(c *net.UnixConn, h *handover, left *estate) error {
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	var fds []int
	for _, name := range h.Sockets {
		fds = append(fds, int(left.files[name].Fd()))
	}
	length := fmt.Appendf(nil, "%020d", len(text))
	if _, _, err := c.WriteMsgUnix(length, unix.UnixRights(fds...), nil); err != nil {
		return err
	}
	_, err = c.Write(text)
	return err
}

// receive is what send sends.
func receive(c *net.UnixConn) (*handover, *estate, error) {
	const maxSockets = 200
	length := make([]byte, 20)
	oob := make([]byte, unix.CmsgSpace(maxSockets*4))
	n, oobn, _, _, err := c.ReadMsgUnix(length, oob)
	if err != nil {
		return nil, nil, err
	}
	fds, err := readRights(oob[:oobn])
	if err != nil {
		return nil, nil, err
	}
	e := &estate{files: map[string]*os.File{}}
	h, err := readHandover(c, length[:n])
	if err == nil && len(h.Sockets) != len(fds) {
		err = fmt.Errorf("%d descriptors for %d sockets", len(fds), len(h.Sockets))
	}
	for i, fd := range fds {
		name := fmt.Sprint("unknown ", i)
		if err == nil {
			name = h.Sockets[i]
		}
		e.add(name, fd)
	}
	if err != nil {
		e.drop()
		return nil, nil, err
	}
	return h, e, nil
}

func readRights(oob []byte) (fds []int, err error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		some, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return nil, err
		}
		fds = append(fds, some...)
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	return fds, nil
}

func readHandover(c io.Reader, length []byte) (*handover, error) {
	var n int
	if _, err := fmt.Sscanf(string(length), "%020d", &n); err != nil || n <= 0 || n > maxHandover {
		return nil, fmt.Errorf("length %q", length)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(c, text); err != nil {
		return nil, err
	}
	h := &handover{}
	if err := json.Unmarshal(text, h); err != nil {
		return nil, err
	}
	if h.Version != handoverVersion {
		return nil, fmt.Errorf("version %d is not known", h.Version)
	}
	return h, nil
}
