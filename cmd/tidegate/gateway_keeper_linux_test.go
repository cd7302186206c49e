package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"tidegate.io/tidegate/lab"
)

func TestTheServiceManagerKeepsASocket(t *testing.T) {
	k, err := lab.NewKeeper()
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	cmd := exec.Command("true")
	if err := k.Start(cmd, func(*exec.Cmd) error { return nil }); err != nil {
		t.Fatal(err)
	}
	for _, e := range cmd.Env {
		if name, value, _ := strings.Cut(e, "="); name == "NOTIFY_SOCKET" || name == "FDSTORE" {
			t.Setenv(name, value)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := keep("it", w); err != nil {
		t.Fatal(err)
	}
	w.Close()
	open := func(wait time.Duration) bool {
		r.SetReadDeadline(time.Now().Add(wait))
		_, err := r.Read(make([]byte, 1))
		return !errors.Is(err, io.EOF)
	}
	if !open(50 * time.Millisecond) {
		t.Error("it was kept, and is closed")
	}
	if err := forget("it"); err != nil {
		t.Fatal(err)
	}
	if open(10 * time.Second) {
		t.Error("it was forgotten, and is open")
	}
}

func TestNobodyKeepsWithoutSayingSo(t *testing.T) {
	for _, row := range []struct{ name, socket, store string }{
		{"no service manager", "", ""},
		{"one before systemd 254, or a unit without a store", "/run/systemd/notify", ""},
	} {
		t.Setenv("NOTIFY_SOCKET", row.socket)
		t.Setenv("FDSTORE", row.store)
		if err := keep("it", os.Stdin); !errors.Is(err, errNoKeeper) {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}
