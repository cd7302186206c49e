package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Queue reads the packets of one NFQUEUE and sends their verdicts. All methods
// but Stats and Wake belong to the goroutine that calls Run.
type Queue struct {
	num     uint16
	sock    *socket
	out     []byte // verdict messages that are not sent yet
	behind  []byte // packets to be sent when these are
	lengths []int  // of each of them
	handler Handler
	in      *datagrams
	batch   []Packet // reused
	packets atomic.Uint64
	lost    atomic.Uint64
}

const (
	// defaultQueueLen is the number of packets that may wait: at 32 thousands
	// were dropped under load, at this none.
	defaultQueueLen = 16384
	// queueCopy is the most that is copied of a packet, and all of most.
	queueCopy = 0xffff
	// receiveBuffer holds a queue full of ordinary packets.
	receiveBuffer = 64 << 20
	// batchLen is how many packets one system call reads, so that a flood
	// cannot keep verdicts and ticks waiting.
	batchLen = 64
	// readSize holds one packet of the largest size with its attributes.
	readSize = queueCopy + 512
	// maxUnsent bounds one message of verdicts to what a socket takes.
	maxUnsent = 64 << 10

	defaultTick = 10 * time.Millisecond
)

// OpenQueue takes over queue num of the network namespace of the calling thread.
// It fails when another process has it.
func OpenQueue(num uint16, o QueueOptions) (*Queue, error) {
	s, err := openSocket(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("queue %d: %w", num, err)
	}
	q := &Queue{num: num, sock: s, in: newDatagrams(batchLen, readSize)}
	if err := q.configure(o); err != nil {
		return nil, errors.Join(fmt.Errorf("queue %d: %w", num, err), s.close())
	}
	return q, nil
}

// AdoptQueue goes on reading queue num on the socket of a process that has had it, with
// the packets that wait in it. It owns f.
func AdoptQueue(num uint16, f *os.File) (*Queue, error) {
	s, err := adoptSocket(f)
	if err != nil {
		return nil, fmt.Errorf("queue %d: %w", num, err)
	}
	return &Queue{num: num, sock: s, in: newDatagrams(batchLen, readSize)}, nil
}

// File is the queue's socket for [AdoptQueue] in another process. Its packets go to
// whoever reads first, so this Queue must not Run any more.
func (q *Queue) File() (*os.File, error) { return q.sock.duplicate() }

func (q *Queue) configure(o QueueOptions) error {
	if o.MaxLen == 0 {
		o.MaxLen = defaultQueueLen
	}
	flags := uint32(nfqFlagGSO)
	if o.FailOpen {
		flags |= nfqFlagFailOpen
	}
	if err := q.sock.noENOBUFS(); err != nil {
		return err
	}
	q.sock.receiveBuffer(receiveBuffer)
	config := func(attrs []byte) error {
		return q.sock.request(message(nil, typeQueueConfig, unix.NLM_F_REQUEST|unix.NLM_F_ACK, unix.AF_UNSPEC, q.num, attrs))
	}
	bind := []byte{nfqCmdBind, 0, 0, 0}
	if err := config(attr(nil, nfqaCfgCmd, bind)); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	params := append(binary.BigEndian.AppendUint32(nil, queueCopy), nfqCopyPacket)
	attrs := attr(nil, nfqaCfgParams, params)
	attrs = attr32(attrs, nfqaCfgMaxLen, uint32(o.MaxLen))
	attrs = attr32(attrs, nfqaCfgFlags, flags)
	attrs = attr32(attrs, nfqaCfgMask, flags)
	if err := config(attrs); err != nil {
		return fmt.Errorf("configure: %w", err)
	}
	return nil
}

// Close gives the queue up; packets that wait in it are dropped, or pass where
// the rules say bypass.
func (q *Queue) Close() error { return q.sock.close() }

// Run reads until ctx is done and then returns nil. It does not close the queue. While
// the kernel forwards what a batch of verdicts lets go, Run keeps its processor from other
// goroutines: a program gives each queue one more of them (runtime.GOMAXPROCS).
func (q *Queue) Run(ctx context.Context, h Handler) error {
	if h.Every == 0 {
		h.Every = defaultTick
	}
	q.handler = h
	stop := context.AfterFunc(ctx, q.sock.interrupt)
	defer stop()
	var next time.Time
	for ctx.Err() == nil {
		if now := time.Now(); !now.Before(next) {
			next = now.Add(h.Every)
			// Before what follows, so that no interruption is undone: what
			// it is about is seen now, or it ends the next read.
			if err := q.sock.file.SetReadDeadline(next); err != nil {
				return fmt.Errorf("queue %d: %w", q.num, err)
			}
			if ctx.Err() != nil {
				break
			}
			if h.Tick != nil {
				h.Tick(now)
			}
		}
		err := q.flush()
		if err == nil {
			err = q.read(h.Packets)
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			next = time.Time{}
		case err != nil:
			return fmt.Errorf("queue %d: %w", q.num, err)
		}
	}
	return q.flush()
}

// Wake makes Run call Handler.Tick now, or very soon. It may be called from any
// goroutine, by one that has left something to be done there.
func (q *Queue) Wake() { q.sock.interrupt() }

// read waits for packets until the deadline, hands over what is there and sends
// the verdicts. It returns os.ErrDeadlineExceeded when it is time for a tick.
func (q *Queue) read(handle func([]Packet)) error {
	n, err := q.sock.receiveMany(q.in)
	switch {
	case errors.Is(err, unix.EINTR):
		return nil
	case errors.Is(err, unix.ENOBUFS):
		q.lost.Add(1) // a loss, and no reason to stop: the clients send again
		return nil
	case err != nil:
		return fmt.Errorf("read: %w", err)
	}
	q.batch = q.batch[:0]
	for i := range n {
		q.batch = appendPackets(q.batch, q.in.datagram(i))
	}
	if len(q.batch) > 0 {
		q.packets.Add(uint64(len(q.batch)))
		handle(q.batch)
	}
	return q.flush()
}

// appendPackets appends the packets of a datagram; they share its memory.
func appendPackets(batch []Packet, b []byte) []Packet {
	for h, body := range headers(b) {
		if h.Type != typeQueuePacket || len(body) < nfgenLen {
			continue
		}
		var p Packet
		seen := false
		for typ, v := range attributes(body[nfgenLen:]) {
			switch typ {
			case nfqaPacketHeader:
				if len(v) >= 4 {
					p.ID, seen = binary.BigEndian.Uint32(v), true
				}
			case nfqaPayload:
				p.Payload = v
			case nfqaCapLen:
				p.Cut = true
			}
		}
		if seen {
			batch = append(batch, p)
		}
	}
	return batch
}

// Verdict answers for packet id, once, now or after any time. Accepted, it goes
// on with mark; the zero mark leaves its connection as it was. [Cut] in the mark
// of an accepted packet resets its sender and marks the connection, so that the
// other end is reset as well when it sends. Not accepted, the packet vanishes.
func (q *Queue) Verdict(id uint32, accept bool, mark Mark) {
	verdict := uint32(nfDrop)
	if accept {
		verdict = nfAccept
	}
	start := len(q.out)
	q.out = messageHeader(q.out, typeQueueVerdict, unix.NLM_F_REQUEST, unix.AF_UNSPEC, q.num)
	q.out = attrHeader(q.out, nfqaVerdictHeader, 8)
	q.out = binary.BigEndian.AppendUint32(q.out, verdict)
	q.out = binary.BigEndian.AppendUint32(q.out, id)
	if mark != 0 {
		q.out = attr32(q.out, nfqaMark, uint32(mark))
	}
	finish(q.out, start)
	if len(q.out) > maxUnsent {
		// An error is seen again, and returned, by the flush that follows.
		_ = q.flush()
	}
}

// Behind keeps a copy of a packet, and hands it to Handler.Behind when the verdicts that
// were given before it are with the kernel: a reset whose sequence number counts what a
// verdict lets go must not overtake that.
func (q *Queue) Behind(packet []byte) {
	q.behind = append(q.behind, packet...)
	q.lengths = append(q.lengths, len(packet))
}

// Flush sends verdicts that were given outside of Run, after it.
func (q *Queue) Flush() error { return q.flush() }

func (q *Queue) flush() error {
	if len(q.out) > 0 {
		err := q.sock.sendNow(q.out)
		if errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EAGAIN) {
			return nil // kept, and tried again with the next
		}
		q.out = q.out[:0]
		if err != nil {
			return fmt.Errorf("send verdicts: %w", err)
		}
	}
	rest := q.behind
	for _, n := range q.lengths {
		q.handler.Behind(rest[:n])
		rest = rest[n:]
	}
	q.behind, q.lengths = q.behind[:0], q.lengths[:0]
	return nil
}

// Stats counts what the queue has seen. It may be called from any goroutine, in
// the network namespace of the queue.
func (q *Queue) Stats() (QueueStats, error) {
	s := QueueStats{Packets: q.packets.Load(), Overruns: q.lost.Load()}
	const path = "/proc/thread-self/net/netfilter/nfnetlink_queue"
	b, err := os.ReadFile(path)
	if err != nil {
		return s, fmt.Errorf("queue %d: %w", q.num, err)
	}
	for line := range strings.Lines(string(b)) {
		// number, port, waiting, copy mode, copy range, full, unread, id, 1
		var num, port, mode, size uint64
		n, err := fmt.Sscan(line, &num, &port, &s.Waiting, &mode, &size, &s.Full, &s.Unread)
		if err != nil || n < 7 {
			return s, fmt.Errorf("queue %d: %s: line %q", q.num, path, line)
		}
		if num == uint64(q.num) {
			return s, nil
		}
	}
	return s, fmt.Errorf("queue %d: not in %s", q.num, path)
}
