package dnsproxy

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/miekg/dns"

	"tidegate.io/tidegate/egress"
)

// maxForged is how many messages that do not answer the question are read from
// a socket before TCP, which cannot be forged from afar, is asked instead.
const maxForged = 4

// question is what is asked of an upstream.
type question struct {
	name   egress.Name
	qtype  uint16
	do, cd bool
}

var (
	errForged    = errors.New("the answers do not match the question")
	errTruncated = errors.New("truncated over TCP")
)

// unusable is an answer to the question that says nothing about the name. The
// upstream lives: what it cannot resolve may be the name's fault, and a client
// chooses the name.
type unusable struct{ error }

func (u unusable) Unwrap() error { return u.error }

// rcodeError is the RCODE of an unusable answer.
type rcodeError int

func (e rcodeError) Error() string { return dns.RcodeToString[int(e)] }

// exchange asks u and returns what it may be believed. It takes until ctx is
// done at the longest.
func (s *Server) exchange(ctx context.Context, u *upstream, q question) (*chain, error) {
	c, err := s.exchangeOnce(ctx, u, q, true)
	if errors.Is(err, rcodeError(dns.RcodeFormatError)) || errors.Is(err, rcodeError(dns.RcodeNotImplemented)) {
		c, err = s.exchangeOnce(ctx, u, q, false) // a server from before EDNS (RFC 6891, section 6.2.2)
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", u.addr, err)
	}
	return c, nil
}

func (s *Server) exchangeOnce(ctx context.Context, u *upstream, q question, edns bool) (*chain, error) {
	packed, err := q.pack(edns, !u.lowers.Load())
	if err != nil {
		return nil, err
	}
	m, err := s.askUDP(ctx, u, packed)
	if errors.Is(err, errForged) || err == nil && m.Truncated {
		u.tcp.Add(1)
		m, err = s.askTCP(ctx, u, packed)
	}
	switch {
	case err != nil:
		return nil, err
	case m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
		return nil, unusable{rcodeError(m.Rcode)}
	}
	c, err := accept(m, dns.Question{Name: q.name.String() + ".", Qtype: q.qtype, Qclass: dns.ClassINET}, q.do)
	if err != nil {
		return nil, unusable{err}
	}
	return c, nil
}

// pack makes a query with an id that cannot be guessed and, if mixed, a name
// whose upper and lower case cannot be either: the upstream repeats both, and
// whoever forges an answer would have to know them.
func (q question) pack(edns, mixed bool) ([]byte, error) {
	var random [2 + maxNameLen/8 + 1]byte
	_, _ = rand.Read(random[:]) // never fails
	name := []byte(q.name.String() + ".")
	for i, c := range name {
		if mixed && c >= 'a' && c <= 'z' && random[2+i/8]>>(i%8)&1 != 0 {
			name[i] = c - ('a' - 'A')
		}
	}
	m := new(dns.Msg)
	m.SetQuestion(string(name), q.qtype)
	m.Id = binary.BigEndian.Uint16(random[:])
	m.CheckingDisabled = q.cd
	if edns {
		m.SetEdns0(maxUDP, q.do)
	}
	return m.Pack()
}

// likeness is how far a message answers a query.
type likeness int

const (
	otherwise   likeness = iota // no answer to it
	caseChanged                 // it answers but for the case of the name
	answers
)

// match compares what an answer has to repeat (RFC 5452, section 9.1).
func match(query, answer []byte) likeness {
	end := questionEnd(query)
	if len(answer) < end || !bytes.Equal(answer[:2], query[:2]) || answer[2]&(flagQR>>8) == 0 || answer[2]>>3&0xf != dns.OpcodeQuery ||
		binary.BigEndian.Uint16(answer[4:]) != 1 {
		return otherwise
	}
	asked, told := query[headerLen:end], answer[headerLen:end]
	switch {
	case bytes.Equal(asked, told):
		return answers
	case equalFold(asked[:len(asked)-4], told[:len(told)-4]) && bytes.Equal(asked[len(asked)-4:], told[len(told)-4:]):
		return caseChanged
	}
	return otherwise
}

// questionEnd is where the question of a query that we packed ends.
func questionEnd(query []byte) int {
	off, _ := skipName(query, headerLen)
	return off + 4
}

// equalFold is ASCII only: Unicode's folding would accept other names.
func equalFold(a, b []byte) bool {
	for i := range a {
		x, y := a[i], b[i]
		if x != y && (x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z') {
			return false
		}
	}
	return true
}

func (s *Server) dial(ctx context.Context, network string, u *upstream) (net.Conn, error) {
	if s.Dial != nil {
		return s.Dial(ctx, network, u.addr.String())
	}
	return new(net.Dialer).DialContext(ctx, network, u.addr.String())
}

// hangUp ends the conversations on c when ctx is done.
func hangUp(ctx context.Context, c net.Conn) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
}

// askUDP sends a query from a socket that nobody else uses meanwhile, of a
// random port, and returns the first message that answers it.
func (s *Server) askUDP(ctx context.Context, u *upstream, query []byte) (*dns.Msg, error) {
	c, err := s.line(ctx, u)
	if err != nil {
		return nil, err
	}
	stop := hangUp(ctx, c)
	m, err := c.ask(u, query)
	// An answer that is late must not come to another question.
	if stop() && err == nil && s.Dial == nil {
		u.lines.give(c)
	} else {
		_ = c.Close()
	}
	return m, err
}

func (c *line) ask(u *upstream, query []byte) (*dns.Msg, error) {
	if _, err := c.Write(query); err != nil {
		return nil, err
	}
	for range maxForged {
		n, err := c.Read(c.buf[:])
		if err != nil {
			return nil, err
		}
		switch match(query, c.buf[:n]) {
		case answers:
			m := new(dns.Msg)
			if err := m.Unpack(c.buf[:n]); err != nil && !m.Truncated {
				return nil, unusable{err}
			}
			return m, nil
		case caseChanged:
			u.mismatches.Add(1)
			return nil, errForged // forged, or a server that lowers names: TCP will tell
		}
		u.mismatches.Add(1)
		c.asked = maxAsked // somebody may have found the port
	}
	return nil, errForged
}

// askTCP asks over TCP (RFC 7766), where only the upstream can answer.
func (s *Server) askTCP(ctx context.Context, u *upstream, query []byte) (*dns.Msg, error) {
	conn, err := s.dial(ctx, "tcp", u)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer hangUp(ctx, conn)()
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)); err != nil {
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, err
	}
	answer := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return nil, err
	}
	switch match(query, answer) {
	case otherwise:
		return nil, errForged
	case caseChanged:
		u.lowers.Store(true)
	}
	m := new(dns.Msg)
	if err := m.Unpack(answer); err != nil {
		return nil, unusable{err}
	}
	if m.Truncated {
		return nil, unusable{errTruncated}
	}
	return m, nil
}
