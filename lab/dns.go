//go:build linux

package lab

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// AzureDNS is the resolver of every virtual network, where the gateway and, without one, the nodes ask.
var AzureDNS = netip.MustParseAddr("168.63.129.16")

// serveDNS answers on pc and ln until the server is closed. Every address of the lab's internet is such a resolver.
func (s *server) serveDNS(pc net.PacketConn, ln net.Listener) {
	s.runDNS(&dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(s.resolve)})
	s.runDNS(&dns.Server{Listener: ln, Handler: dns.HandlerFunc(s.resolve)})
}

// serveDoT answers DNS over TLS, on the port that a client which wants to be unseen tries first.
func (s *server) serveDoT(ln net.Listener) {
	conf := &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		local := addrPort(h.Conn.LocalAddr())
		s.rec.add(Seen{Proto: "tls", Local: local, Remote: addrPort(h.Conn.RemoteAddr()), Name: h.ServerName, Whole: true, Data: []byte(h.ServerName)})
		return s.ca.Leaf(h.ServerName, local.Addr())
	}}
	s.runDNS(&dns.Server{Listener: tls.NewListener(ln, conf), Net: "tcp-tls", Handler: dns.HandlerFunc(s.resolve)})
}

// closerFunc makes a function a thing that can be closed.
type closerFunc func() error

func (f closerFunc) Close() error { return f() }

func (s *server) runDNS(d *dns.Server) {
	started := make(chan struct{})
	d.MsgAcceptFunc = func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept } // what comes has come, and is recorded
	d.NotifyStartedFunc = func() { close(started) }
	s.wg.Go(func() { _ = d.ActivateAndServe() })
	<-started
	stop := closerFunc(d.Shutdown)
	s.track(&stop)
}

// resolve answers one query from the zone, and records it.
func (s *server) resolve(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable = true
	if len(q.Question) != 1 {
		for _, ask := range q.Question {
			s.recordQuery(w, q, strings.TrimSuffix(strings.ToLower(ask.Name), "."))
		}
		m.Rcode = dns.RcodeFormatError
		_ = w.WriteMsg(m)
		return
	}
	ask := q.Question[0]
	name := strings.TrimSuffix(strings.ToLower(ask.Name), ".")
	s.recordQuery(w, q, name)
	s.fill(m, ask, name)
	poison(m, name)
	if addrPort(w.LocalAddr()).IsValid() && w.LocalAddr().Network() == "udp" {
		size := dns.MinMsgSize
		if o := q.IsEdns0(); o != nil {
			size = int(o.UDPSize())
			m.SetEdns0(1232, o.Do())
		}
		m.Truncate(size)
	}
	if f := s.tamper.Load(); f != nil && *f != nil {
		if m = (*f)(addrPort(w.LocalAddr()).Addr(), w.LocalAddr().Network(), m); m == nil {
			return
		}
	}
	_ = w.WriteMsg(m)
}

// recordQuery notes a question, and what its options carry.
func (s *server) recordQuery(w dns.ResponseWriter, q *dns.Msg, name string) {
	data := []byte(name)
	if o := q.IsEdns0(); o != nil {
		for _, option := range o.Option {
			if local, ok := option.(*dns.EDNS0_LOCAL); ok {
				data = append(append(data, ' '), local.Data...)
			}
		}
	}
	s.rec.add(Seen{Proto: "dns", Local: addrPort(w.LocalAddr()), Remote: addrPort(w.RemoteAddr()), Name: name, Whole: true, Data: data})
}

// fill writes the answer to one question into m.
func (s *server) fill(m *dns.Msg, ask dns.Question, name string) {
	if !s.zone.Exists(name) {
		m.Rcode = dns.RcodeNameError
		m.Ns = []dns.RR{soa(".")}
		return
	}
	header := func(owner string, rrtype uint16, ttl uint32) dns.RR_Header {
		return dns.RR_Header{Name: owner, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
	}
	owner := ask.Name
	for _, to := range s.zone.Chain(name)[1:] {
		m.Answer = append(m.Answer, &dns.CNAME{Hdr: header(owner, dns.TypeCNAME, 300), Target: dns.Fqdn(to)})
		owner = dns.Fqdn(to)
	}
	switch ask.Qtype {
	case dns.TypeA, dns.TypeAAAA:
		addrs, ttl := s.zone.Answer(name, ask.Qtype == dns.TypeAAAA)
		for _, a := range addrs {
			var rr dns.RR = &dns.A{Hdr: header(owner, dns.TypeA, ttl), A: a.AsSlice()}
			if a.Is6() {
				rr = &dns.AAAA{Hdr: header(owner, dns.TypeAAAA, ttl), AAAA: a.AsSlice()}
			}
			m.Answer = append(m.Answer, rr)
		}
		if len(addrs) == 0 {
			m.Ns = []dns.RR{soa(owner)}
		}
	case dns.TypeTXT: // the way back of a DNS tunnel
		m.Answer = append(m.Answer, &dns.TXT{Hdr: header(owner, dns.TypeTXT, 0), Txt: []string{"lab", name[:min(len(name), 255)]}})
	case dns.TypeHTTPS: // what makes a browser change to HTTP/3, or to an address that no A record gave
		rr := &dns.HTTPS{SVCB: dns.SVCB{Hdr: header(owner, dns.TypeHTTPS, 300), Priority: 1, Target: "."}}
		rr.Value = []dns.SVCBKeyValue{&dns.SVCBAlpn{Alpn: []string{"h3", "h2"}}, &dns.SVCBIPv4Hint{Hint: []net.IP{{20, 66, 66, 66}}}}
		m.Answer = append(m.Answer, rr)
	default:
		m.Ns = []dns.RR{soa(owner)}
	}
}

func soa(zone string) dns.RR {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: dns.Fqdn(zone), Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 30},
		Ns:  "ns.lab.", Mbox: "hostmaster.lab.", Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: 30,
	}
}

// forwardTimeout is a little more than a gateway takes to try a second upstream.
const forwardTimeout = 4 * time.Second

// serveForwarder is CoreDNS on a node: every pod of every node asks it, and it asks upstream from the node it runs on. So
// the address from which a name was asked is not the one that connects, and the connections come from several nodes.
// dial opens a connection from the node.
func (s *server) serveForwarder(pc net.PacketConn, ln net.Listener, dial func(ctx context.Context, network string) (net.Conn, error)) {
	forward := func(w dns.ResponseWriter, q *dns.Msg) {
		if s.ownDNS.Load() {
			s.resolve(w, q)
			return
		}
		network := w.LocalAddr().Network()
		ctx, cancel := context.WithTimeout(context.Background(), forwardTimeout)
		defer cancel()
		m := exchange(ctx, network, q, dial)
		if m == nil {
			m = new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
		}
		_ = w.WriteMsg(m)
	}
	s.runDNS(&dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(forward)})
	s.runDNS(&dns.Server{Listener: ln, Handler: dns.HandlerFunc(forward)})
}

// exchange asks once and, over UDP, once more; it returns nil without an answer.
func exchange(ctx context.Context, network string, q *dns.Msg, dial func(ctx context.Context, network string) (net.Conn, error)) *dns.Msg {
	for range 2 {
		c, err := dial(ctx, network)
		if err != nil {
			continue
		}
		client := dns.Client{Net: network, Timeout: forwardTimeout / 2}
		m, _, err := client.ExchangeWithConnContext(ctx, q, &dns.Conn{Conn: c})
		_ = c.Close()
		if err == nil {
			return m
		}
	}
	return nil
}
