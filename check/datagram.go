package check

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"

	"github.com/beevik/ntp"
	"github.com/miekg/dns"
)

// probeNTP asks for the time (RFC 5905).
func probeNTP(ctx context.Context, h *Host, t Target) error {
	addrs, err := h.addresses(ctx, t)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		to := netip.AddrPortFrom(a, t.Port)
		var answer *ntp.Response
		answer, err = ntp.QueryWithOptions(to.String(), ntp.QueryOptions{
			Timeout: h.patience(),
			Dialer:  func(_, _ string) (net.Conn, error) { return h.dial(ctx, "udp", to) },
		})
		if err == nil {
			err = answer.Validate()
		}
		switch {
		case err == nil:
			return nil
		case timedOut(err):
			err = fault(UDPSilent, "%s does not tell the time", to)
		case errors.Is(err, syscall.ECONNREFUSED):
			err = fault(UDPRefused, "%s: %s", to, plain(err))
		case dialCause(err) == Unreachable:
			err = fault(Unreachable, "%s: %s", to, plain(err))
		default:
			err = fault(NotTime, "%s: %s", to, plain(err))
		}
	}
	return err
}

// probeDNS asks one DNS server over UDP and over TCP. What it answers does not matter, only that it does.
func probeDNS(ctx context.Context, h *Host, t Target) error {
	addrs, err := h.addresses(ctx, t)
	if err != nil {
		return err
	}
	server := netip.AddrPortFrom(addrs[0], t.Port)
	const name = "mcr.microsoft.com"
	if _, err := h.exchange(ctx, "udp", server, name, dns.TypeA); err != nil {
		return fault(DNSSilent, "%s over UDP: %s", server, plain(err))
	}
	if _, err := h.exchange(ctx, "tcp", server, name, dns.TypeA); err != nil {
		return fault(DNSNoTCP, "%s over TCP: %s", server, plain(err))
	}
	return nil
}

// probeLookup only asks DNS for the name.
func probeLookup(ctx context.Context, h *Host, t Target) error {
	_, err := h.addresses(ctx, t)
	return err
}

// probeUDP sends what is usual on the port and wants any answer.
func probeUDP(ctx context.Context, h *Host, t Target) error {
	addrs, err := h.addresses(ctx, t)
	if err != nil {
		return err
	}
	to := netip.AddrPortFrom(addrs[0], t.Port)
	for range 2 { // a datagram may be lost
		if err = h.sendUDP(ctx, to, greetingUDP(t.Port)); err == nil {
			return nil
		}
	}
	return err
}

func (h *Host) sendUDP(ctx context.Context, to netip.AddrPort, word []byte) error {
	c, err := h.dial(ctx, "udp", to)
	if err != nil {
		return fault(Unreachable, "%s: %s", to, plain(err))
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	c = impatient{c, h.patience() / 2}
	if _, err = c.Write(word); err == nil {
		_, err = c.Read(make([]byte, 2048))
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ECONNREFUSED):
		return fault(UDPRefused, "%s: %s", to, plain(err))
	case dialCause(err) == Unreachable:
		return fault(Unreachable, "%s: %s", to, plain(err))
	}
	return fault(UDPSilent, "%s does not answer", to)
}

// greetingUDP is a datagram that servers on a port answer whoever asks: OpenVPN's hard reset on 1194, and on 443 a QUIC
// packet of a version that no server knows, which it answers with those it does (RFC 9000 section 6).
func greetingUDP(port uint16) []byte {
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails
	switch port {
	case 1194:
		const hardResetClientV2 = 7 << 3
		return append(append([]byte{hardResetClientV2}, id...), 0, 0, 0, 0, 0)
	case 443:
		const minInitial = 1200 // RFC 9000 section 14.1: a server ignores less
		packet := append([]byte{0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8}, id...)
		packet = append(packet, 0)
		return append(packet, make([]byte, minInitial-len(packet))...)
	}
	return append([]byte("tidegate-check "), id...)
}

// errSeen ends a handshake that has shown what it was made for.
var errSeen = errors.New("seen")

// probeTCP connects and wants the server to say something: on SSH's ports it speaks first, on those of TLS it answers a
// ClientHello, elsewhere it may be that it waits for a word that the check does not know.
func probeTCP(ctx context.Context, h *Host, t Target) error {
	c, err := h.connect(ctx, t)
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	switch t.Port {
	case 443, 853, 8443, 6443, 993, 5671:
		name := t.Name.String()
		conf := &tls.Config{
			ServerName: name, InsecureSkipVerify: true, // who answers is not asked, only that somebody does
			VerifyPeerCertificate: func([][]byte, [][]*x509.Certificate) error { return errSeen },
		}
		if err := tls.Client(c, conf).HandshakeContext(ctx); err != nil && !errors.Is(err, errSeen) {
			return handshakeFault(err)
		}
		return nil
	}
	if _, err := io.WriteString(c, "SSH-2.0-tidegate_check\r\n"); err != nil { // RFC 4253 section 4.2; others answer with an error
		return fault(TCPRefused, "connected, then: %s", plain(err))
	}
	n, err := c.Read(make([]byte, 256))
	switch {
	case n > 0:
		return nil
	case reset(err), errors.Is(err, io.EOF):
		return fault(TCPRefused, "connected, then: %s", plain(err))
	case t.Port == 22, t.Port == 9000:
		return fault(Mute, "connected to port %d, and no greeting", t.Port)
	}
	return fault(Accepted, "connected to port %d, and no answer", t.Port)
}
