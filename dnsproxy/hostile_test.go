package dnsproxy

import (
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// honest is the answer to a query as it came, packed.
func honest(t testing.TB, query []byte, text string) []byte {
	t.Helper()
	q := new(dns.Msg)
	if err := q.Unpack(query); err != nil {
		t.Errorf("query %x: %v", query, err)
	}
	return pack(t, replyTo(q, message(t, text)))
}

func changed(b []byte, change func(b []byte) []byte) []byte { return change(append([]byte(nil), b...)) }

// TestForgeries are messages that do not answer our query; what comes after
// them does, or must be had over TCP.
func TestForgeries(t *testing.T) {
	const evil, good = "a.ok.example. 60 IN A 20.6.6.6", aliceA
	for _, tt := range []struct {
		name  string
		forge func(b []byte) []byte // of the true query's evil answer
	}{
		{"another id", func(b []byte) []byte { b[0] ^= 1; return b }},
		{"a query", func(b []byte) []byte { b[2] &^= 0x80; return b }},
		{"another opcode", func(b []byte) []byte { b[2] |= dns.OpcodeNotify << 3; return b }},
		{"no question", func(b []byte) []byte { b[5] = 0; return append(b[:headerLen], b[headerLen+18:]...) }},
		{"another type", func(b []byte) []byte { b[headerLen+15] = 28; return b }},
		{"another class", func(b []byte) []byte { b[headerLen+17] = 3; return b }},
		{"another name", func(b []byte) []byte { b[headerLen+1] = 'b'; return b }},
		{"a name that folds to ours in Unicode", func(b []byte) []byte { b[headerLen+4] = 0x8b; return b }},
		{"half a header", func(b []byte) []byte { return b[:7] }},
		{"nothing", func([]byte) []byte { return nil }},
		{"the case of the name changed", func(b []byte) []byte { b[headerLen+1] ^= 0x20; return b }},
	} {
		for _, n := range []int{1, 100} {
			t.Run(fmt.Sprintf("%s, %d times", tt.name, n), func(t *testing.T) {
				var tcp atomic.Bool
				up := rawUpstream(t, func(query []byte, overTCP bool) [][]byte {
					if overTCP {
						tcp.Store(true)
						return [][]byte{honest(t, query, good)}
					}
					var all [][]byte
					for range n {
						all = append(all, changed(honest(t, query, evil), tt.forge))
					}
					return append(all, honest(t, query, good))
				})
				s, notes := newServer(up)
				got := text(ask(t, "udp", run(t, s), queryFor(t, alice)))
				if learned, _ := notes.take(); got != good || len(learned) != 1 || learned[0] != "prod a.ok.example 20.1.2.3" {
					t.Errorf("answered %q, learned %q", got, learned)
				}
				if n > maxForged && !tcp.Load() {
					t.Error("TCP was not asked")
				}
				if s.Stats().Upstreams[0].Mismatches == 0 {
					t.Error("not counted")
				}
			})
		}
	}
}

// TestQueriesCannotBeGuessed: ids, ports and spellings differ from query to query.
func TestQueriesCannotBeGuessed(t *testing.T) {
	udp, tcp := listen(t)
	defer tcp.Close()
	defer udp.Close()
	ids, ports, spellings := map[uint16]bool{}, map[uint16]bool{}, map[string]bool{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for range 64 {
			n, from, err := udp.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			ids[binary.BigEndian.Uint16(buf)], ports[from.Port()], spellings[string(buf[headerLen:n])] = true, true, true
			udp.WriteToUDPAddrPort(honest(t, buf[:n], "long-name-with-letters.ok.example. 0 IN A 20.1.2.3"), from)
		}
	}()
	s, _ := newServer(udp.LocalAddr().(*net.UDPAddr).AddrPort())
	server := run(t, s)
	for range 64 {
		ask(t, "udp", server, queryFor(t, "long-name-with-letters.ok.example A"))
	}
	<-done
	if len(ids) < 60 || len(ports) < 48 || len(spellings) < 60 {
		t.Errorf("64 queries: %d ids, %d ports, %d spellings", len(ids), len(ports), len(spellings))
	}
}

// TestLowersNames: a server that does not repeat the case is found out over
// TCP once, and from then on asked in lower case.
func TestLowersNames(t *testing.T) {
	up := rawUpstream(t, func(query []byte, _ bool) [][]byte {
		name := strings.ToLower(string(query[headerLen : headerLen+14]))
		b := honest(t, query, "a.ok.example. 0 IN A 20.1.2.3")
		copy(b[headerLen:], name)
		return [][]byte{b}
	})
	s, _ := newServer(up)
	server := run(t, s)
	for range 20 {
		if got := text(ask(t, "udp", server, queryFor(t, alice))); got != "a.ok.example. 0 IN A 20.1.2.3" {
			t.Fatal(got)
		}
	}
	if st := s.Stats().Upstreams[0]; st.TCP > 5 {
		t.Errorf("%d questions over TCP", st.TCP)
	}
}

// TestOddMessages do answer, and are broken or odd.
func TestOddMessages(t *testing.T) {
	for _, tt := range []struct {
		name string
		say  func(query []byte, tcp bool) [][]byte
		want string
	}{
		{"truncated over UDP is whole over TCP", func(q []byte, tcp bool) [][]byte {
			if tcp {
				return [][]byte{honest(t, q, aliceA)}
			}
			return [][]byte{honest(t, q, "TC\na.ok.example. 60 IN A 20.6.6.6")}
		}, aliceA},
		{"truncated in the middle of a record is whole over TCP", func(q []byte, tcp bool) [][]byte {
			b := honest(t, q, "TC\n"+aliceA)
			if tcp {
				return [][]byte{honest(t, q, aliceA)}
			}
			return [][]byte{b[:len(b)-2]}
		}, aliceA},
		{"truncated over TCP too fails", func(q []byte, _ bool) [][]byte { return [][]byte{honest(t, q, "TC\n"+aliceA)} }, "SERVFAIL"},
		{"cut off without saying so fails", func(q []byte, _ bool) [][]byte { b := honest(t, q, aliceA); return [][]byte{b[:len(b)-2]} }, "SERVFAIL"},
		{"an address of three bytes fails", func(q []byte, _ bool) [][]byte {
			b := honest(t, q, aliceA)
			b[len(b)-5] = 3
			return [][]byte{b[:len(b)-1]}
		}, "SERVFAIL"},
		{"an address of no bytes is none", func(q []byte, _ bool) [][]byte {
			b := honest(t, q, aliceA)
			b[len(b)-5] = 0
			return [][]byte{b[:len(b)-4]}
		}, ""},
		{"a name that points to itself fails", func(q []byte, _ bool) [][]byte {
			b := honest(t, q, aliceA)
			binary.BigEndian.PutUint16(b[headerLen+18:], 0xc000|headerLen+18)
			return [][]byte{b}
		}, "SERVFAIL"},
		{"more records than said are ignored", func(q []byte, _ bool) [][]byte {
			b := honest(t, q, aliceA+"\na.ok.example. 60 IN A 20.6.6.6")
			b[7] = 1
			return [][]byte{b}
		}, aliceA},
		{"1,000 addresses are had over TCP", func(q []byte, tcp bool) [][]byte {
			if tcp {
				return [][]byte{honest(t, q, addresses(1000))}
			}
			return [][]byte{honest(t, q, "TC")}
		}, addresses(1000)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := newServer(rawUpstream(t, tt.say))
			if got := text(ask(t, "tcp", run(t, s), queryFor(t, alice))); got != lines(tt.want) {
				t.Errorf("got %.200q, want %.200q", got, tt.want)
			}
		})
	}
}

func addresses(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "a.ok.example. 60 IN A 20.1.%d.%d\n", i/256, i%256)
	}
	return b.String()
}

// TestSilentTCP: an upstream that truncates, accepts and says nothing costs
// a failure in time.
func TestSilentTCP(t *testing.T) {
	up := rawUpstream(t, func(q []byte, tcp bool) [][]byte {
		if tcp {
			time.Sleep(askLimit + time.Second)
			return nil
		}
		return [][]byte{honest(t, q, "TC")}
	})
	s, _ := newServer(up)
	if got := text(ask(t, "udp", run(t, s), queryFor(t, alice))); got != "SERVFAIL" {
		t.Errorf("got %q", got)
	}
}
