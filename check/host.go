package check

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

// A Host is the machine that the probes run on, as far as they need it. Its methods may be called from any number of
// goroutines.
type Host struct {
	Dial      func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) // nil: the system's
	Servers   []netip.AddrPort                                                               // DNS, asked in this order
	Hosts     map[string][]netip.Addr                                                        // as /etc/hosts has them
	Roots     *x509.CertPool                                                                 // nil: the system's
	ClusterCA *x509.CertPool                                                                 // signs the API server's certificate; nil: not known
	Proxy     func(*url.URL) (*url.URL, error)                                               // nil: none
	// Credentials are told to the registries of Registry and Artefact targets that want them, each only if it signs its
	// clients in itself; nil: none.
	Credentials *url.Userinfo

	Patience time.Duration    // for each answer; zero: 4 s
	Now      func() time.Time // nil: time.Now
}

const (
	patience     = 4 * time.Second // a SYN is sent again after 1 s and 3 s, so that one lost packet is no fault
	maxAddresses = 3               // of a name are tried: more would not end in seconds
	maxHosts     = 1 << 20         // bytes of /etc/hosts; ad blockers' lists are this long
)

func (h *Host) patience() time.Duration {
	if h.Patience > 0 {
		return h.Patience
	}
	return patience
}

func (h *Host) now() time.Time {
	if h.Now != nil {
		return h.Now()
	}
	return time.Now()
}

// ReadResolvConf reads the DNS servers of resolv.conf(5); no server means the local one.
func ReadResolvConf(r io.Reader) ([]netip.AddrPort, error) {
	conf, err := dns.ClientConfigFromReader(r)
	if err != nil {
		return nil, fmt.Errorf("read resolv.conf: %w", err)
	}
	var servers []netip.AddrPort
	for _, s := range conf.Servers {
		if a, err := netip.ParseAddr(s); err == nil {
			servers = append(servers, netip.AddrPortFrom(a, 53))
		}
	}
	if len(servers) == 0 {
		servers = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
	}
	return servers, nil
}

// ReadHosts reads hosts(5). Nodes of private clusters have their API server there.
func ReadHosts(r io.Reader) (map[string][]netip.Addr, error) {
	hosts := map[string][]netip.Addr{}
	lines := bufio.NewScanner(io.LimitReader(r, maxHosts))
	for lines.Scan() {
		text, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(text)
		if len(fields) < 2 {
			continue
		}
		a, err := netip.ParseAddr(fields[0])
		if err != nil {
			continue
		}
		for _, name := range fields[1:] {
			name = strings.ToLower(strings.TrimSuffix(name, "."))
			hosts[name] = append(hosts[name], a)
		}
	}
	return hosts, lines.Err()
}

// addresses finds where a target is: IPv4 first, at most maxAddresses.
func (h *Host) addresses(ctx context.Context, t Target) ([]netip.Addr, error) {
	if t.Addr.IsValid() {
		return []netip.Addr{t.Addr}, nil
	}
	name := t.Name.String()
	addrs := h.Hosts[name]
	if len(addrs) == 0 {
		var err error
		if addrs, err = h.lookup(ctx, name); err != nil {
			return nil, err
		}
	}
	for _, a := range addrs {
		if a.IsUnspecified() || a.IsLoopback() {
			return nil, fault(Sinkhole, "%s leads to %s", name, a)
		}
		if t.Private && !a.IsPrivate() {
			return nil, fault(PublicAddress, "%s leads to %s", name, a)
		}
	}
	return addrs[:min(len(addrs), maxAddresses)], nil
}

// lookup asks for IPv4 addresses and, without any, for IPv6 ones. An answer without addresses or an error from one
// server is final, as it is for the system's resolver; only silence leads to the next server.
func (h *Host) lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		m, err := h.ask(ctx, name, qtype)
		if err != nil {
			return nil, err
		}
		var addrs []netip.Addr
		for _, rr := range m.Answer {
			switch rr := rr.(type) {
			case *dns.A:
				a, _ := netip.AddrFromSlice(rr.A)
				addrs = append(addrs, a.Unmap())
			case *dns.AAAA:
				a, _ := netip.AddrFromSlice(rr.AAAA)
				addrs = append(addrs, a)
			}
		}
		if len(addrs) > 0 {
			return addrs, nil
		}
	}
	return nil, fault(NoAddress, "DNS has no address for %s", name)
}

func (h *Host) ask(ctx context.Context, name string, qtype uint16) (*dns.Msg, error) {
	var silent error = fault(DNSSilent, "no DNS server is known")
	for _, server := range h.Servers {
		m, err := h.exchange(ctx, "udp", server, name, qtype)
		if err == nil && m.Truncated {
			m, err = h.exchange(ctx, "tcp", server, name, qtype)
		}
		if err != nil {
			silent = fault(DNSSilent, "%s does not answer for %s: %s", server, name, plain(err))
			continue
		}
		switch m.Rcode {
		case dns.RcodeSuccess:
			return m, nil
		case dns.RcodeNameError:
			return nil, fault(NoSuchName, "%s says that %s does not exist (NXDOMAIN)", server, name)
		case dns.RcodeRefused:
			return nil, fault(DNSRefused, "%s refuses %s (REFUSED)", server, name)
		}
		return nil, fault(DNSFailed, "%s answers %s for %s", server, dns.RcodeToString[m.Rcode], name)
	}
	return nil, silent
}

// exchange asks one server, and over UDP once more when the first datagram is lost.
func (h *Host) exchange(ctx context.Context, network string, server netip.AddrPort, name string, qtype uint16) (m *dns.Msg, err error) {
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	q.SetEdns0(1232, false)
	for range 2 {
		var c net.Conn
		if c, err = h.dial(ctx, network, server); err != nil {
			continue
		}
		client := dns.Client{Net: network, Timeout: h.patience() / 2}
		m, _, err = client.ExchangeWithConnContext(ctx, q, &dns.Conn{Conn: c})
		_ = c.Close()
		if err == nil || ctx.Err() != nil {
			return m, err
		}
	}
	return nil, err
}

func (h *Host) dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, h.patience())
	defer cancel()
	if h.Dial != nil {
		return h.Dial(ctx, network, to)
	}
	var d net.Dialer
	return d.DialContext(ctx, network, to.String())
}

// connect opens a TCP connection to a target's first address that takes one. Every read and write on it ends after the
// host's patience. The caller closes it.
func (h *Host) connect(ctx context.Context, t Target) (net.Conn, error) {
	addrs, err := h.addresses(ctx, t)
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		var c net.Conn
		to := netip.AddrPortFrom(a, t.Port)
		if c, err = h.dial(ctx, "tcp", to); err == nil {
			return impatient{c, h.patience()}, nil
		}
		err = fault(dialCause(err), "connect to %s: %s", to, plain(err))
	}
	return nil, err
}

func dialCause(err error) Cause {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		return TCPRefused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return Unreachable
	}
	return TCPSilent
}

// impatient is a connection whose every read and write has a deadline of its own.
type impatient struct {
	net.Conn
	patience time.Duration
}

func (c impatient) Read(b []byte) (int, error) {
	_ = c.SetReadDeadline(time.Now().Add(c.patience))
	return c.Conn.Read(b)
}

func (c impatient) Write(b []byte) (int, error) {
	_ = c.SetWriteDeadline(time.Now().Add(c.patience))
	return c.Conn.Write(b)
}

func timedOut(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}

func reset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNABORTED)
}

// plain is an error in the fewest words: what the system said, without addresses that are told already.
func plain(err error) string {
	var errno syscall.Errno
	switch {
	case timedOut(err):
		return "no answer in time"
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "closed by the other side"
	}
	return err.Error()
}
