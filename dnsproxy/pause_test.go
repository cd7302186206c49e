package dnsproxy

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestPause: what has been asked is answered, what is asked then is left to whoever else has the socket.
func TestPause(t *testing.T) {
	asked, say := make(chan struct{}), make(chan struct{})
	s, _ := newServer(upstreamSaying(t, func(*dns.Msg, bool) *dns.Msg {
		close(asked)
		<-say
		return message(t, aliceA)
	}))
	udp, tcp := listen(t)
	s.UDP, s.TCP = []*net.UDPConn{udp}, []net.Listener{tcp}
	file, err := udp.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	next, err := net.FilePacketConn(file)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()

	before, err := net.Dial("udp", udp.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	question, err := queryFor(t, alice).Pack()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, maxUDP)
	_, _ = before.Write(question)
	<-asked
	s.Pause()
	time.Sleep(50 * time.Millisecond) // a reader that goes on has the next question by then
	after, err := net.Dial("udp", udp.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	_, _ = after.Write(question)
	close(say)
	for what, c := range map[string]interface {
		SetReadDeadline(time.Time) error
		Read([]byte) (int, error)
	}{"the answer": before, "the other's question": next.(*net.UDPConn)} {
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(buf); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// TestNoQuestionIsForgotten asks one question after the other from many sockets, so that some come while the reader
// is busy and some while it is about to wait.
func TestNoQuestionIsForgotten(t *testing.T) {
	const clients, questions = 8, 2000
	s, _ := newServer(upstreamSaying(t, func(*dns.Msg, bool) *dns.Msg { return message(t, aliceA) }))
	server := run(t, s)
	ask(t, "udp", server, queryFor(t, alice))
	question, err := queryFor(t, alice).Pack()
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	for range clients {
		go func() {
			c, err := net.Dial("udp", server)
			if err != nil {
				failed <- err
				return
			}
			defer c.Close()
			buf := make([]byte, maxUDP)
			for i := 0; i < questions && err == nil; i++ {
				_, _ = c.Write(question)
				_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
				_, err = c.Read(buf)
			}
			failed <- err
		}()
	}
	for range clients {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
}
