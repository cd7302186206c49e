package dnsproxy_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"tidegate.io/tidegate/dnsproxy"
	"tidegate.io/tidegate/egress"
)

// A server for one cluster: the policy says what may be resolved, and the
// gateway hears of an answer before the client does.
func ExampleServer() {
	endpoint, _ := egress.ParseEndpoint("https://mcr.microsoft.com:443")
	policy, err := egress.Compile(
		[]egress.Rule{{ID: "core/mcr", To: []egress.Endpoint{endpoint}}},
		[]egress.Cluster{{Name: "prod", From: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		fmt.Println(err)
		return
	}
	s := &dnsproxy.Server{
		UDP:       []*net.UDPConn{conn},
		Upstreams: []netip.AddrPort{netip.MustParseAddrPort("168.63.129.16:53")},
		Client: func(a netip.Addr) (string, bool) {
			c := policy.Cluster(a)
			if c == nil {
				return "", false
			}
			return c.Name, true
		},
		MayResolve: policy.Permits,
		Learn: func(_ context.Context, bindings []egress.Binding) error {
			return nil // open them
		},
		Denied: func(scope string, c egress.Conn, r egress.Reason) {
			fmt.Println(scope, c.Name, r)
		},
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()

	client := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, conn.LocalAddr().String())
	}}
	_, err = client.LookupNetIP(ctx, "ip4", "data.tunnel.example.")
	var notFound *net.DNSError
	fmt.Println(errors.As(err, &notFound) && notFound.IsNotFound)
	stop()
	fmt.Println(<-done)
	// Output:
	// prod data.tunnel.example name-not-resolvable
	// true
	// <nil>
}
