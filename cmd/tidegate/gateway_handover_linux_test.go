package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/gateway"
)

// unixPair is two ends of a socket.
func unixPair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		ends[i] = c.(*net.UnixConn)
	}
	return ends[0], ends[1]
}

// TestHandOverArrivesWhole: descriptors and what followers have saved, each under its name.
func TestHandOverArrivesWhole(t *testing.T) {
	old, next := unixPair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	left := &estate{files: map[string]*os.File{"tcp management": r}}
	saved := &gateway.Saved{Version: gateway.SavedVersion, Recent: []gateway.SavedRecent{{Mark: 7}}}
	go func() {
		_ = send(old, &handover{Version: handoverVersion, Sockets: []string{"tcp management"}, Followers: map[uint16]*gateway.Saved{15300: saved}}, left)
	}()
	h, e, err := receive(next)
	if err != nil {
		t.Fatal(err)
	}
	defer e.drop()
	if got := h.Followers[15300]; got == nil || len(got.Recent) != 1 || got.Recent[0].Mark != 7 {
		t.Errorf("followers: %+v", h.Followers)
	}
	f := e.take("tcp management")
	if f == nil || e.take("tcp management") != nil {
		t.Fatal("the descriptor is there not exactly once")
	}
	defer f.Close()
	if _, err := io.WriteString(w, "over"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(f, got); err != nil || string(got) != "over" {
		t.Errorf("the descriptor is another one: %q, %v", got, err)
	}
}

// TestHandOverOfAnotherMakeIsRefused, before anything of it is used.
func TestHandOverOfAnotherMakeIsRefused(t *testing.T) {
	whole, err := json.Marshal(handover{Version: handoverVersion})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ what, length, text, says string }{
		{"another version", "", `{"version": 99}`, "version 99"},
		{"a socket without its descriptor", "", `{"version": 1, "sockets": ["lock"]}`, "0 descriptors for 1"},
		{"no JSON", "", "queues", "invalid"},
		{"no length", "how long is it, then?"[:20], string(whole), "length"},
		{"more than there can be", fmt.Sprintf("%020d", maxHandover+1), "", "length"},
		{"an end in the middle", fmt.Sprintf("%020d", len(whole)+1), string(whole), "EOF"},
	} {
		old, next := unixPair(t)
		length := row.length
		if length == "" {
			length = fmt.Sprintf("%020d", len(row.text))
		}
		if _, err := io.WriteString(old, length+row.text); err != nil {
			t.Fatal(err)
		}
		old.Close()
		if _, _, err := receive(next); err == nil || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v, want %q", row.what, err, row.says)
		}
	}
}
