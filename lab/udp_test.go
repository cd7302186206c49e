//go:build linux

package lab

import (
	"net"
	"testing"
	"time"

	"github.com/beevik/ntp"
)

// TestNTPReplySatisfiesAClient asks with a real client.
func TestNTPReplySatisfiesAClient(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	go func() {
		for buf := make([]byte, 1500); ; {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(ntpReply(buf[:n], time.Now()), from)
		}
	}()
	answer, err := ntp.Query(pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := answer.Validate(); err != nil {
		t.Error(err)
	}
	if answer.ClockOffset.Abs() > time.Minute {
		t.Errorf("the clock is off by %s", answer.ClockOffset)
	}
}
