package wire

import (
	"bufio"
	"crypto/tls"
	"net/netip"
	"strings"
	"testing"

	"tidegate.io/tidegate/wire/wiretest"
)

func BenchmarkReadClientHello(b *testing.B) {
	client := wiretest.Client(name)
	for _, row := range []struct {
		what   string
		stream []byte
	}{
		{"openssl-323B", recorded(b, "hello/openssl-3.0")},
		{"curl-517B", recorded(b, "hello/curl-7.88")},
		{"crypto-tls-pq-1.5KB", wiretest.Dialled(&tls.Config{ServerName: name})},
		{"padded-16KB", client.PadTo(16_000).Bytes()},
		{"padded-60KB-4-records", client.PadTo(60_000).Bytes()},
		{"277B-16-records", wiretest.Records(client.Message(), len(client.Message())/15)},
		{"garbage", []byte("SSH-2.0-OpenSSH_9.2\r\n")},
	} {
		b.Run(row.what, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = ReadClientHello(row.stream)
			}
		})
	}
}

// BenchmarkReadClientHelloByteByByte is the cost of a whole hello of 60 KB that arrives in
// segments of one byte.
func BenchmarkReadClientHelloByteByByte(b *testing.B) {
	stream := wiretest.Client(name).PadTo(60_000).Bytes()
	b.ReportAllocs()
	for b.Loop() {
		for n := range len(stream) + 1 {
			_, _ = ReadClientHello(stream[:n])
		}
	}
}

func BenchmarkReadAnswer(b *testing.B) {
	for _, file := range []string{"openssl-3.0-tls13", "openssl-3.0-retry"} {
		stream := recorded(b, "answer/"+file)
		b.Run(file, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ReadAnswer(stream)
			}
		})
	}
}

func BenchmarkReadPacket(b *testing.B) {
	options := insert(40, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2)
	for _, row := range []struct {
		what   string
		packet []byte
	}{{"IPv4", with(4, options)}, {"IPv6", with(6, set(0))}} {
		b.Run(row.what, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = ReadPacket(row.packet)
			}
		})
	}
}

func BenchmarkAppendReset(b *testing.B) {
	src, dst := netip.MustParseAddrPort("20.1.2.3:443"), netip.MustParseAddrPort("10.224.0.4:40000")
	buf := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		AppendReset(buf, src, dst, 1, 2)
	}
}

func BenchmarkReadRequest(b *testing.B) {
	head := lines("GET /ubuntu/dists/noble/InRelease HTTP/1.1", "Host: security.ubuntu.com",
		"User-Agent: Debian APT-HTTP/1.3 (2.7)", "Cache-Control: max-age=0", "Accept: text/*",
		"If-Modified-Since: Tue, 01 Jul 2025 10:00:00 GMT")
	br := bufio.NewReaderSize(nil, MaxHead)
	out := make([]byte, 0, MaxHead)
	b.ReportAllocs()
	for b.Loop() {
		br.Reset(strings.NewReader(head))
		r, err := ReadRequest(br)
		if err != nil {
			b.Fatal(err)
		}
		r.AppendHead(out)
	}
}

// TestAllocations holds the promise of the package comment.
func TestAllocations(t *testing.T) {
	packet, hello := with(4, set(0)), wiretest.Client(name).Bytes()
	answer, buf := recorded(t, "answer/openssl-3.0-retry"), make([]byte, 0, 64)
	p, _ := ReadPacket(packet)
	for _, row := range []struct {
		what string
		want float64
		do   func()
	}{
		{"a packet", 0, func() { _, _ = ReadPacket(packet) }},
		{"a reset", 0, func() { AppendReset(buf, p.Src, p.Dst, 1, 2) }},
		{"an answer", 0, func() { ReadAnswer(answer) }},
		{"half a hello", 0, func() { _, _ = ReadClientHello(hello[:100]) }},
		{"no hello", 0, func() { _, _ = ReadClientHello(packet) }},
		{"a hello, for its name", 1, func() { _, _ = ReadClientHello(hello) }},
	} {
		if got := testing.AllocsPerRun(100, row.do); got != row.want {
			t.Errorf("%s: %v allocations, want %v", row.what, got, row.want)
		}
	}
}
