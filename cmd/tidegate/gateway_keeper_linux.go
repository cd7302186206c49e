package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tableName is the table's socket. The kernel lets nobody else change the table for as long as
// anybody has it open.
const tableName = "table"

// errNoKeeper says that nobody keeps descriptors for this process.
var errNoKeeper = errors.New("no service manager that keeps descriptors (FileDescriptorStoreMax=, systemd 254)")

// keptWithin is how long the service manager may take to say that it has what it was sent.
const keptWithin = 5 * time.Second

// keep gives the service manager a descriptor that it holds when this process is dead, and then
// gives to the next (systemd's file descriptor store, sd_notify(3)). Without an error it has it.
func keep(name string, f *os.File) error {
	// FDPOLL: it would drop a socket with an error, such as one that was sent more than it read.
	if err := tellManager("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, f); err != nil {
		return err
	}
	return awaitManager()
}

// forget makes the service manager drop what it keeps by a name.
func forget(name string) error { return tellManager("FDSTOREREMOVE=1\nFDNAME=" + name) }

// tellManager sends a message with descriptors.
func tellManager(message string, files ...*os.File) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" || os.Getenv("FDSTORE") == "" { // it would take the descriptor, and drop it without a word
		return errNoKeeper
	}
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("service manager: %w", err)
	}
	defer func() { _ = unix.Close(s) }()
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	if err := unix.Sendmsg(s, []byte(message), unix.UnixRights(fds...), &unix.SockaddrUnix{Name: path}, 0); err != nil {
		return fmt.Errorf("service manager: %w", err)
	}
	return nil
}

// awaitManager returns when all that it was told before has been done: it closes a pipe then.
func awaitManager() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	if err := errors.Join(tellManager("BARRIER=1", w), w.Close(), r.SetReadDeadline(time.Now().Add(keptWithin))); err != nil {
		return err
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("service manager: nothing confirmed: %w", err)
	}
	return nil
}

// firstKept is the first descriptor that a service manager passes (sd_listen_fds(3)).
const firstKept = 3

// addKept adds what the service manager has kept since another process died, unless a live one
// has handed it over.
func (e *estate) addKept() {
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if pid := os.Getenv("LISTEN_PID"); err != nil || pid != strconv.Itoa(os.Getpid()) {
		return
	}
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for i := range min(n, len(names)) {
		unix.CloseOnExec(firstKept + i)
		if names[i] != tableName || e.files[tableName] != nil {
			_ = unix.Close(firstKept + i)
			continue
		}
		e.add(tableName, firstKept+i)
	}
	_ = os.Unsetenv("LISTEN_FDS") // a descriptor is taken once
}

// keepTable has the service manager keep the table's socket. Where it does not, policy rules
// stand behind the table, which cost something for each packet.
func (b *box) keepTable() error {
	f, err := b.table.File()
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	err = keep(tableName, f)
	b.table.Kept = err == nil
	if err != nil {
		b.log.Warn("the table's socket is not kept; policy rules guard the clients instead", "err", err)
	}
	return nil
}

// leaveTable removes the table, or makes the policy rules with which nothing passes once it is
// nobody's any more.
func (b *box) leaveTable(remove bool) (err error) {
	switch {
	case remove:
		err = b.table.Remove()
	case b.table.Kept:
		err = b.table.Gate()
	}
	if err == nil {
		err = b.forgetTable()
	}
	return err
}

// forgetTable leaves the table's socket to others.
func (b *box) forgetTable() error {
	if b.table == nil || !b.table.Kept {
		return nil
	}
	return forget(tableName)
}
