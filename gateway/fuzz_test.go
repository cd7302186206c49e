package gateway

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/wire"
	"tidegate.io/tidegate/wire/wiretest"
)

// tlsName is the server name that crypto/tls reads from a client's stream; ok is false while, or
// because, it reads no hello.
func tlsName(stream []byte) (name string, ok bool) {
	stop := errors.New("enough")
	config := &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		name, ok = h.ServerName, true
		return nil, stop
	}}
	_ = tls.Server(&playback{Reader: bytes.NewReader(stream)}, config).Handshake() // it ends in stop, or in what is wrong
	return name, ok
}

// playback is a connection whose client has said all that it says. Its net.Conn is nil: crash on any
// unexpected use.
type playback struct {
	net.Conn
	io.Reader
}

func (p *playback) Read(b []byte) (int, error)  { return p.Reader.Read(b) }
func (p *playback) Write(b []byte) (int, error) { return len(b), nil }
func (p *playback) Close() error                { return nil }

// maxConnBytes is what one connection may keep: two of the largest hellos and a server's answer.
const maxConnBytes = 128<<10 + 32<<10

// FuzzSegmentation cuts a hello into segments of any size, order and overlap. The verdict must be the
// one that crypto/tls's reading of the name asks for, and an allowed hello must arrive.
func FuzzSegmentation(f *testing.F) {
	f.Add(false, uint16(0), []byte{0, 0, 255})
	f.Add(true, uint16(1700), []byte{200, 0, 10, 100, 0, 250, 3, 3, 3})
	f.Add(false, uint16(40000), []byte{9, 1, 255, 0, 0, 255, 70, 0, 255})
	f.Fuzz(func(t *testing.T, deny bool, size uint16, cuts []byte) {
		name, want := good, egress.Allow
		if deny {
			name, want = evil, egress.Deny
		}
		hello := wiretest.Client(name.String()).PadTo(int(size) % 60000).Bytes()
		if n, ok := tlsName(hello); !ok || n != name.String() {
			t.Fatalf("crypto/tls reads %q, %v", n, ok)
		}
		r := newRig(t).handshake()
		send := func(from, n int) {
			from = from % len(hello)
			r.say(from, hello[from:min(from+n, len(hello))])
			if b := r.f.Stats().Bytes; b > maxConnBytes {
				t.Fatalf("%d bytes are kept", b)
			}
		}
		const pause = 10 * time.Millisecond
		rests := helloWithin/pause - 1 // more, and it is refused for the time that it takes
		for ; len(cuts) >= 3 && len(r.flows) == 0; cuts = cuts[3:] {
			send(int(cuts[0])*len(hello)/256+int(cuts[1]), 1+int(cuts[2])*8)
			if cuts[1]%8 == 0 && rests > 0 {
				r.after(pause)
				rests--
			}
			if cuts[1]%8 == 1 && len(r.flows) == 0 {
				r.handOver() // another process goes on: nothing may change
			}
		}
		for at := 0; at < len(hello) && len(r.flows) == 0; at += 1000 { // a client sends again what is not acknowledged
			send(at, 1000)
		}
		r.answer(len(hello), 0, serverHello())
		if len(r.flows) != 1 || r.flows[0].Verdict.Action != want {
			t.Fatalf("decided %q for %s", r.words(), name)
		}
		first, last := r.delivered()
		if !bytes.Equal(first, last) {
			t.Fatal("the server got two versions of a byte")
		}
		if _, ok := tlsName(first); ok && deny {
			t.Fatal("the server has a denied hello")
		}
		if !deny && !bytes.Equal(first, hello) {
			t.Fatalf("the server has %d bytes of %d", len(first), len(hello))
		}
		r.after(recentFor)
		r.empty()
	})
}

// honest is a server that knows TLS and its own TCP: it ignores some segments for reasons that the
// gateway cannot see, acknowledges what it has, and answers a hello that it has read.
type honest struct {
	stream  stream
	ignored map[uint32]bool // packets
	said    int             // bytes of its own stream
	hellos  int
	done    bool // it has said its ServerHello
}

// FuzzFollower is an evil client between an honest server and the gateway. It has an allowed and a
// denied hello of the same length, and sends pieces of either, with any flags, anywhere; the server
// takes some and ignores others. Whatever happens, the server must never have read a denied hello,
// and the gateway may only let a connection go whose server has read the allowed one, the second
// after a HelloRetryRequest included.
func FuzzFollower(f *testing.F) {
	whole := byte(255)
	f.Add([]byte{0, 0, whole, 0x80})
	f.Add([]byte{4, 0, whole, 0, 1, 0, whole, 0, 0, 0, whole, 0x80})
	f.Add([]byte{0, 0, whole, 0xc0, 1, 0, whole, 0x80, 3, 0, whole, 0x80})
	f.Add([]byte{0, 0, 40, 0, 0, 36, whole, 0x20, 9, 0, whole, 0x80, 0x30, 3, 3, 0})
	f.Add([]byte{2, 0, whole, 0x80, 0, 0, whole, 0x40, 3, 0, whole, 0x80})
	f.Fuzz(func(t *testing.T, ops []byte) {
		r := newRig(t).handshake()
		a := wiretest.Client(good.String()).PadTo(300).Bytes()
		b := wiretest.Client(evil.String()).PadTo(300).Bytes()
		texts := [4][]byte{join(a, a), join(b, b), join(a, b), join(a, changeCipher(), b)}
		flags := [8]wire.Flags{push, push, push, push, push | wire.FIN, wire.ACK, wire.RST, push | wire.URG}
		s := &honest{ignored: map[uint32]bool{}}
		for ; len(ops) >= 4; ops = ops[4:] {
			text := texts[ops[0]&3]
			from := int(ops[1])*4 - 8
			n := int(ops[2]) + 1
			if ops[2] == whole {
				n = len(a)
			}
			lo := max(from, 0)
			id := r.client(flags[ops[3]&7], lo, text[min(lo, len(text)):min(lo+n, len(text))])
			s.ignored[id] = ops[0]&4 != 0
			if ops[3]&0x20 != 0 {
				r.after(releaseAfter)
			}
			if ops[3]&0x10 != 0 {
				r.handOver()
			}
			s.take(t, r)
			if ops[3]&0x80 != 0 {
				s.speak(r, ops[3]&0x40 != 0)
			}
			if st := r.f.Stats(); st.Bytes > maxConnBytes {
				t.Fatalf("%d bytes are kept", st.Bytes)
			}
		}
		s.check(t, r)
		r.after(idleFor)
		r.empty()
	})
}

// take gives the server every packet that has passed by now.
func (s *honest) take(t *testing.T, r *rig) {
	for _, id := range r.order {
		p, v := r.packets[id], r.verdicts[id]
		if s.ignored[id] || !v.accept || v.mark == cutMark || p.Src != r.src || p.Flags.Has(wire.SYN) || odd(&p) {
			continue
		}
		off, data := int(int32(p.Seq-r.isn-1)), p.Payload
		if old := s.stream.next - off; old > 0 { // read already
			data, off = data[min(old, len(data)):], s.stream.next
		}
		s.stream.buf = append(s.stream.buf, make([]byte, max(0, off+len(data)-len(s.stream.buf)))...)
		s.stream.put(off, data) // the last version wins, as in Linux when it begins earlier
	}
	if name, ok := tlsName(s.stream.buf[:s.stream.next]); ok && name != good.String() {
		t.Fatalf("the server has read the hello of %q", name)
	}
}

// speak acknowledges, and answers what is complete.
func (s *honest) speak(r *rig, retry bool) {
	r.server(wire.ACK, s.stream.next, s.said, nil)
	if s.done {
		return
	}
	from := 0
	for range s.hellos {
		h, err := wire.ReadClientHello(s.stream.buf[from:s.stream.next])
		if err != nil {
			return
		}
		from += h.Len
	}
	if _, err := wire.ReadClientHello(s.stream.buf[from:s.stream.next]); err != nil {
		return
	}
	say := serverHello()
	if retry && s.hellos == 0 {
		say = retryRequest()
	}
	s.hellos++
	s.done = !retry || s.hellos > 1
	r.answer(s.stream.next, s.said, say)
	s.said += len(say)
}

// check holds a connection that was let go against what the server has read.
func (s *honest) check(t *testing.T, r *rig) {
	if len(r.flows) == 0 || r.flows[0].Verdict.Action != egress.Allow {
		return
	}
	letGo := false
	for id := range r.packets {
		letGo = letGo || r.fate(id) == "allowed"
	}
	if !letGo {
		return
	}
	rest := s.stream.buf[:s.stream.next]
	for range max(1, s.hellos) {
		name, ok := tlsName(rest)
		if !ok || name != good.String() {
			t.Fatalf("let go, and the server has read %q, %v", name, ok)
		}
		h, err := wire.ReadClientHello(rest)
		if err != nil {
			t.Fatal(err)
		}
		rest = rest[h.Len:]
	}
}

// FuzzStream holds the bookkeeping of a stream against a map of bytes.
func FuzzStream(f *testing.F) {
	f.Add([]byte{0, 5, 10, 3, 5, 5, 200, 1, 100, 100, 2, 250})
	f.Fuzz(func(t *testing.T, ops []byte) {
		s := stream{buf: make([]byte, 0, 1024)}
		have := map[int]byte{}
		value := func(i int) byte { return byte(i * 7) }
		for ; len(ops) >= 2; ops = ops[2:] {
			off, n := int(ops[0])*2, int(ops[1])
			data := make([]byte, n)
			known, conflict := true, false
			for i := range data {
				data[i] = value(off + i)
				if ops[0] == 77 && i == n/2 {
					data[i]++
				}
				old, is := have[off+i]
				known = known && is
				conflict = conflict || is && old != data[i]
			}
			if s.conflicts(off, data) != conflict {
				t.Fatalf("[%d,%d) conflicts: %v", off, off+n, !conflict)
			}
			if conflict || s.scattered(off, off+n) {
				continue
			}
			if n > 0 && s.has(off, off+n) != known {
				t.Fatalf("[%d,%d) is known: %v", off, off+n, !known)
			}
			s.put(off, data)
			for i := range data {
				have[off+i] = data[i]
			}
		}
		next := 0
		for ; ; next++ {
			if _, is := have[next]; !is {
				break
			}
		}
		if s.next != next || len(s.ahead) > maxAhead {
			t.Fatalf("contiguous to %d, want %d; %d pieces ahead", s.next, next, len(s.ahead))
		}
		for i, b := range have {
			if s.buf[i] != b || !s.has(i, i+1) {
				t.Fatalf("byte %d is lost", i)
			}
		}
	})
}
