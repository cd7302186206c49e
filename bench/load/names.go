//go:build linux

package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"

	"golang.org/x/net/dns/dnsmessage"
)

// A NameServer is the authority of all names: Address says which address a name has, and TTL for how many seconds.
type NameServer struct {
	Address func(name string, v6 bool) netip.Addr
	TTL     func(name string) uint32
	asked   atomic.Int64
}

// Asked is how many questions it has answered so far.
func (s *NameServer) Asked() int64 { return s.asked.Load() }

// Serve answers questions that come to c until c is closed.
func (s *NameServer) Serve(c *net.UDPConn) error {
	in, out := make([]byte, 4096), make([]byte, 0, 512)
	for {
		n, from, err := c.ReadFromUDPAddrPort(in)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a question: %w", err)
		}
		if reply, ok := s.answer(out, in[:n]); ok {
			s.asked.Add(1)
			_, _ = c.WriteToUDPAddrPort(reply, from)
		}
	}
}

func (s *NameServer) answer(b, question []byte) ([]byte, bool) {
	var p dnsmessage.Parser
	h, err := p.Start(question)
	if err != nil || h.Response {
		return nil, false
	}
	q, err := p.Question()
	if err != nil {
		return nil, false
	}
	m := dnsmessage.NewBuilder(b, dnsmessage.Header{ID: h.ID, Response: true, RecursionDesired: h.RecursionDesired, RecursionAvailable: true, Authoritative: true})
	m.EnableCompression()
	if m.StartQuestions() != nil || m.Question(q) != nil || m.StartAnswers() != nil {
		return nil, false
	}
	a := s.Address(q.Name.String(), q.Type == dnsmessage.TypeAAAA)
	head := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: s.TTL(q.Name.String())}
	switch {
	case q.Type == dnsmessage.TypeA && a.Is4():
		err = m.AResource(head, dnsmessage.AResource{A: a.As4()})
	case q.Type == dnsmessage.TypeAAAA && a.Is6():
		err = m.AAAAResource(head, dnsmessage.AAAAResource{AAAA: a.As16()})
	}
	if err != nil {
		return nil, false
	}
	out, err := m.Finish()
	return out, err == nil
}

// Question returns the message that asks for name's addresses of one family; its first two bytes are its number.
func Question(name string, v6 bool) ([]byte, error) {
	kind := dnsmessage.TypeA
	if v6 {
		kind = dnsmessage.TypeAAAA
	}
	n, err := dnsmessage.NewName(name + ".")
	if err != nil {
		return nil, fmt.Errorf("name %q: %w", name, err)
	}
	m := dnsmessage.NewBuilder(nil, dnsmessage.Header{RecursionDesired: true})
	if err := errors.Join(m.StartQuestions(), m.Question(dnsmessage.Question{Name: n, Type: kind, Class: dnsmessage.ClassINET})); err != nil {
		return nil, err
	}
	return m.Finish()
}

// answers reports whether reply is a positive answer to the question with this number.
func answers(reply []byte, number uint16) bool {
	return len(reply) > 12 && binary.BigEndian.Uint16(reply) == number && reply[2]&0x80 != 0 && reply[3]&15 == 0 &&
		binary.BigEndian.Uint16(reply[6:]) > 0
}
