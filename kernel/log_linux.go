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

// Log reads the denials that the rules report.
type Log struct {
	group uint16
	sock  *socket
	lost  atomic.Uint64
}

// logBuffer holds tens of thousands of reports while the process is busy.
const logBuffer = 8 << 20

// OpenLog takes over NFLOG group of the network namespace of the calling thread.
func OpenLog(group uint16) (*Log, error) {
	s, err := openSocket(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("log group %d: %w", group, err)
	}
	s.receiveBuffer(logBuffer)
	attrs := attr(nil, nfulaCfgCmd, []byte{nfulCmdBind})
	mode := append(binary.BigEndian.AppendUint32(nil, logCopy), nfulCopyPacket, 0)
	attrs = attr(attrs, nfulaCfgMode, mode)
	attrs = attr32(attrs, nfulaCfgThresh, 16)
	attrs = attr32(attrs, nfulaCfgTimeout, 5) // hundredths of a second
	if err := s.request(message(nil, typeLogConfig, unix.NLM_F_REQUEST|unix.NLM_F_ACK, unix.AF_UNSPEC, group, attrs)); err != nil {
		return nil, errors.Join(fmt.Errorf("log group %d: %w", group, err), s.close())
	}
	return &Log{group: group, sock: s}, nil
}

// AdoptLog goes on reading a group on the socket of a process that has had it. It owns f.
func AdoptLog(group uint16, f *os.File) (*Log, error) {
	s, err := adoptSocket(f)
	if err != nil {
		return nil, fmt.Errorf("log group %d: %w", group, err)
	}
	return &Log{group: group, sock: s}, nil
}

// File is the log's socket for [AdoptLog] in another process.
func (l *Log) File() (*os.File, error) { return l.sock.duplicate() }

// Close gives the group up.
func (l *Log) Close() error { return l.sock.close() }

// Lost is how many times reports were lost because Run was too slow. It may be
// called from any goroutine.
func (l *Log) Lost() uint64 { return l.lost.Load() }

// Run calls each for every report until ctx is done, and then returns nil.
func (l *Log) Run(ctx context.Context, each func(Denial)) error {
	err := l.sock.follow(ctx, atOnce, &l.lost, func(h unix.NlMsghdr, body []byte) {
		if h.Type != typeLogPacket || len(body) < nfgenLen {
			return
		}
		if d, ok := readDenial(body[nfgenLen:]); ok {
			each(d)
		}
	})
	if err != nil {
		return fmt.Errorf("log group %d: %w", l.group, err)
	}
	return nil
}

func readDenial(attrs []byte) (d Denial, ok bool) {
	for typ, v := range attributes(attrs) {
		switch typ {
		case nfulaPayload:
			d.Payload = v
		case nfulaPrefix:
			word, observed := strings.CutPrefix(strings.TrimRight(string(v), "\x00 "), observedPrefix)
			d.Observed = observed
			ok = d.Reason.UnmarshalText([]byte(word)) == nil
		}
	}
	return d, ok && len(d.Payload) > 0
}

// reading says how follow reads: so many datagrams at once, each of a size, and how
// long it rests when it has read all, so that what comes meanwhile wakes nobody.
type reading struct {
	count, size int
	rest        time.Duration
}

// atOnce is for what cannot wait.
var atOnce = reading{count: 1, size: 1 << 16}

// follow reads what the kernel sends by itself, until ctx is done.
func (s *socket) follow(ctx context.Context, how reading, lost *atomic.Uint64, each func(unix.NlMsghdr, []byte)) error {
	if err := s.file.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, s.interrupt)
	defer stop()
	in := newDatagrams(how.count, how.size)
	for ctx.Err() == nil {
		n, err := s.receiveMany(in)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			lost.Add(1)
			continue
		case errors.Is(err, unix.EINTR), errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case err != nil:
			return fmt.Errorf("read: %w", err)
		}
		for i := range n {
			for h, body := range headers(in.datagram(i)) {
				each(h, body)
			}
		}
		if n < how.count {
			time.Sleep(how.rest)
		}
	}
	return nil
}
