//go:build linux

package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"tidegate.io/tidegate/egress"
)

// ports are those on which a server has to listen, for one transport.
func (l *Lab) ports(transport egress.Proto, also []uint16) []uint16 {
	ports := slices.Clone(also)
	for _, r := range l.conf.Rules {
		for _, e := range r.To {
			if e.Proto.Transport() == transport {
				ports = append(ports, e.Ports.First, e.Ports.Last)
			}
		}
	}
	slices.Sort(ports)
	return slices.DeleteFunc(slices.Compact(ports), func(p uint16) bool { return p == 53 || (transport == egress.TCP && p == 853) })
}

// serve opens every socket of the internet, of the private endpoints and of the cluster's DNS.
func (l *Lab) serve() error {
	if err := l.boxes.internet.Do(l.serveInternet); err != nil {
		return fmt.Errorf("open the internet's servers: %w", err)
	}
	if err := l.boxes.vnet.Do(func() error { return l.listen([]uint16{80, 443, 8443}) }); err != nil {
		return fmt.Errorf("open the private endpoints: %w", err)
	}
	err := l.boxes.node[1].Do(func() error {
		pc, ln, err := listenDNS(resolver.String())
		if err == nil {
			l.server.serveForwarder(pc, ln, l.dialUpstream)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("open the cluster's DNS: %w", err)
	}
	return nil
}

// dialUpstream connects the cluster's DNS with the resolver that the virtual network names: the gateway, if there is one.
func (l *Lab) dialUpstream(ctx context.Context, network string) (net.Conn, error) {
	upstream := AzureDNS
	if l.conf.Gateway != nil {
		upstream = GatewayInside[0]
	}
	return l.nodes[1].Dial(ctx, network, netip.AddrPortFrom(upstream, 53))
}

func (l *Lab) serveInternet() error {
	if err := l.listen(l.ports(egress.TCP, tcpPorts)); err != nil {
		return err
	}
	for _, address := range []string{"0.0.0.0:53", "[::]:53"} {
		pc, ln, err := listenDNS(address)
		if err != nil {
			return err
		}
		l.server.serveDNS(pc, ln)
	}
	dot, err := listen("tcp", ":853")
	if err != nil {
		return err
	}
	l.server.serveDoT(dot)
	for _, port := range l.ports(egress.UDP, udpPorts) {
		for _, host := range []string{"0.0.0.0", "::"} {
			pc, err := listenUDP(netip.AddrPortFrom(netip.MustParseAddr(host), port).String())
			if err != nil {
				return err
			}
			if err := l.server.serveUDP(pc); err != nil {
				return fmt.Errorf("udp %s: %w", pc.LocalAddr(), err)
			}
		}
	}
	raw := []string{fmt.Sprintf("ip4:%d", icmp), fmt.Sprintf("ip6:%d", icmp6)}
	for _, p := range rawProtocols {
		raw = append(raw, fmt.Sprintf("ip4:%d", p.number), fmt.Sprintf("ip6:%d", p.number))
	}
	for _, network := range raw {
		pc, err := net.ListenPacket(network, "")
		if err != nil {
			return err
		}
		l.server.serveRaw(pc)
	}
	return nil
}

func (l *Lab) listen(ports []uint16) error {
	for _, port := range ports {
		ln, err := listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		l.server.serveListener(ln)
	}
	return nil
}

func listen(network, address string) (net.Listener, error) {
	lc := net.ListenConfig{KeepAlive: -1} // whether an idle connection lives is the gateway's to show
	lc.SetMultipathTCP(false)
	return lc.Listen(context.Background(), network, address)
}

func listenUDP(address string) (net.PacketConn, error) {
	network := "udp4"
	if address[0] == '[' {
		network = "udp6"
	}
	return net.ListenPacket(network, address)
}

func listenDNS(address string) (net.PacketConn, net.Listener, error) {
	pc, err := listenUDP(address)
	if err != nil {
		return nil, nil, err
	}
	network := "tcp4"
	if address[0] == '[' {
		network = "tcp6"
	}
	ln, err := listen(network, address)
	return pc, ln, err
}
