package dnsproxy

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Sockets to an upstream are used again, because making one costs more than a question. What a forger has to guess stays
// what it is: a question goes out of a port drawn from at least minLines, each of which the kernel drew from its whole range
// (28,232 ports by default) and keeps for some seconds, and no two questions share one at the same time.
const (
	minLines  = 256             // below, a new socket is made
	maxLines  = 1024            // beyond, one is closed after its question
	maxAsked  = 64              // questions of a socket
	maxLineIn = 3 * time.Second // and its time
)

// line is a socket connected to an upstream.
type line struct {
	net.Conn
	asked int
	since time.Time
	buf   [4096]byte // more than we said we take
}

// linePool is the sockets to an upstream that wait for a question.
type linePool struct {
	mu   sync.Mutex
	free []*line
}

// take returns a line at random, or nil when there are not enough to choose from.
func (l *linePool) take() *line {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.free)
	if n < minLines {
		return nil
	}
	i, last := rand.IntN(n), n-1
	c := l.free[i]
	l.free[i], l.free[last] = l.free[last], nil
	l.free = l.free[:last]
	return c
}

// give takes a line back on which no answer is outstanding.
func (l *linePool) give(c *line) {
	if c.asked < maxAsked && time.Since(c.since) < maxLineIn {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.free) < maxLines {
			l.free = append(l.free, c)
			return
		}
	}
	_ = c.Close()
}

// hangUp closes the lines that are older than age.
func (l *linePool) hangUp(age time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	free := l.free
	l.free = free[:0]
	for _, c := range free {
		if time.Since(c.since) < age {
			l.free = append(l.free, c)
		} else {
			_ = c.Close()
		}
	}
	clear(free[len(l.free):])
}

// line returns a line to u for one question.
func (s *Server) line(ctx context.Context, u *upstream) (*line, error) {
	if c := u.lines.take(); c != nil {
		c.asked++
		return c, nil
	}
	conn, err := s.dial(ctx, "udp", u)
	if err != nil {
		return nil, err
	}
	return &line{Conn: conn, asked: 1, since: time.Now()}, nil
}
