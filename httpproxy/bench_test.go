package httpproxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"

	"tidegate.io/tidegate/egress"
)

const (
	benchRequest = "GET /path HTTP/1.1\r\nHost: allowed.test\r\nUser-Agent: Debian APT-HTTP/1.3 (2.6.1)\r\nAccept: */*\r\nCache-Control: max-age=0\r\n\r\n"
	benchAnswer  = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 64\r\n\r\n"
)

// BenchmarkRequests is one kept-alive connection over loopback: the same client and origin with
// nothing between them, and with the proxy.
func BenchmarkRequests(b *testing.B) {
	body := fmt.Sprintf("%064d", 0)
	l := benchOrigin(b, len(benchRequest), benchAnswer+body)
	b.Run("direct", func(b *testing.B) { benchConn(b, l, len(benchAnswer)+64) })
	b.Run("proxy", func(b *testing.B) { benchConn(b, benchProxy(b, l), len(benchAnswer)+64) })
}

// BenchmarkDownload is a body of 16 MiB.
func BenchmarkDownload(b *testing.B) {
	const size = 16 << 20
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
	l := benchOrigin(b, len(benchRequest), head+string(make([]byte, size)))
	for name, addr := range map[string]string{"direct": l, "proxy": benchProxy(b, l)} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			benchConn(b, addr, len(head)+size)
		})
	}
}

func benchConn(b *testing.B, addr string, answer int) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	br := bufio.NewReaderSize(c, 64<<10)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := io.WriteString(c, benchRequest); err != nil {
			b.Fatal(err)
		}
		if _, err := br.Discard(answer); err != nil {
			b.Fatal(err)
		}
	}
}

// benchOrigin answers whenever it has read that many bytes, or the few more that a proxy adds.
func benchOrigin(b *testing.B, request int, answer string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	reply := []byte(answer)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 16<<10)
				for have := 0; ; {
					n, err := c.Read(buf)
					if have += n; err != nil {
						return
					}
					for ; have >= request; have -= request {
						c.Write(reply)
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

func benchProxy(b *testing.B, origin string) string {
	rule, err := egress.ParseEndpoint("http://allowed.test:80")
	if err != nil {
		b.Fatal(err)
	}
	p, err := egress.Compile([]egress.Rule{{ID: "a", To: []egress.Endpoint{rule}}}, nil)
	if err != nil {
		b.Fatal(err)
	}
	bound := []egress.Name{egress.MustParseName("allowed.test")}
	s := &Server{
		Decide: func(_ context.Context, c egress.Conn) egress.Flow {
			c.Bound = bound
			return egress.Flow{Conn: c, Verdict: p.Decide(c)}
		},
		Dial:   func(context.Context, egress.Conn) (net.Conn, error) { return net.Dial("tcp", origin) },
		Report: func(egress.Flow) {},
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.ServeTransparent(ctx, diverted{l, netip.AddrPortFrom(allowed, 80)}) }()
	b.Cleanup(func() { cancel(); <-ended })
	return l.Addr().String()
}
