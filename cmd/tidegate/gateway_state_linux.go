package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/gateway"
)

// Names in the state directory.
const (
	lockFile    = "lock"
	numbersFile = "numbers.json"
	namesFile   = "names.jsonl"
	journalFile = "bindings.journal"

	takeoverFile = "takeover.sock"
)

// stateDir is what has to survive the process. One process has it at a time.
type stateDir struct {
	dir  string
	lock *os.File

	mu      sync.Mutex // guards what follows
	file    *os.File
	journal *gateway.Journal
	broken  bool // the journal's end is not known: write it anew
	gone    bool // another process writes it now
	retry   time.Time
	records int // appended since

	namesOut *os.File
}

const (
	// retryAfter is the pause before a journal that could not be written is tried
	// again: on a full disk each answer would otherwise write all of it, in vain.
	retryAfter = 5 * time.Second

	// maxRecords is how many bindings are appended before the journal is written anew,
	// without those that are over or there twice: whoever asks the same question again
	// and again makes it grow, and one that is too long is not read.
	maxRecords = 1 << 20
)

// openState takes a directory. had is the lock of a process that has it and gives it up;
// nil: nobody may have it.
func openState(dir string, had *os.File) (*stateDir, error) {
	if had != nil {
		return &stateDir{dir: dir, lock: had, broken: true}, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("%s: another gateway has it: %w", dir, err)
	}
	return &stateDir{dir: dir, lock: lock, broken: true}, nil
}

// Close gives the directory up; what is in it stays.
func (s *stateDir) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.file != nil {
		err = s.file.Close()
	}
	if s.namesOut != nil {
		err = errors.Join(err, s.namesOut.Close())
	}
	return errors.Join(err, s.lock.Close())
}

func (s *stateDir) path(name string) string { return filepath.Join(s.dir, name) }

// listen listens for the machine's administrator.
func (s *stateDir) listen(name string) (*net.UnixListener, error) {
	path := s.path(name)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // by then it may be another process's
	return l, os.Chmod(path, 0o600)
}

// giveUp ends writing: another process goes on with the journal.
func (s *stateDir) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
}

// numbers reads the numbers of rules; without a file there are none yet.
func (s *stateDir) numbers() (*gateway.Numbers, error) {
	n := &gateway.Numbers{}
	b, err := os.ReadFile(s.path(numbersFile))
	if errors.Is(err, fs.ErrNotExist) {
		return n, nil
	} else if err != nil {
		return nil, err
	}
	return n, json.Unmarshal(b, n)
}

// keepNumbers writes them before a mark with a new one can exist.
func (s *stateDir) keepNumbers(n *gateway.Numbers) error {
	return replaceFile(s.path(numbersFile), func(f *os.File) error {
		b, err := json.Marshal(n)
		if err != nil {
			return err
		}
		_, err = f.Write(b)
		return err
	})
}

// names reads the numbers of names.
func (s *stateDir) names() (*gateway.Names, error) {
	f, err := os.Open(s.path(namesFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	n, err := gateway.ReadNames(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return n, nil
}

// renewNames writes the file of names anew, and returns it, to be appended to. It is not synced: when the machine
// loses it, the connections are gone as well.
func (s *stateDir) renewNames(lines []byte) (io.Writer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return nil, errors.New("another process writes them")
	}
	path := s.path(namesFile)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if _, err = f.Write(lines); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if s.namesOut != nil {
		_ = s.namesOut.Close() // all that was in it is in the new one
	}
	s.namesOut = f
	return f, nil
}

// restore learns what the journal holds. A torn end is cut off; a broken journal
// is not trusted at all, and written anew.
func (s *stateDir) restore(to *gateway.Bindings, now time.Time) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := os.OpenFile(s.path(journalFile), os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	found, good, err := gateway.ReadJournal(f)
	if err != nil && !errors.Is(err, gateway.ErrTorn) {
		return 0, errors.Join(fmt.Errorf("%s: %w", f.Name(), err), f.Close())
	}
	_ = to.Learn(now, found) // what has no room is learned again when it is asked for
	if cut := f.Truncate(good); cut != nil {
		return len(found), errors.Join(cut, f.Close())
	}
	if _, end := f.Seek(0, 2); end != nil {
		return len(found), errors.Join(end, f.Close())
	}
	s.file, s.journal, s.broken = f, gateway.NewJournal(f), false
	return len(found), err
}

// record appends bindings to the journal. When it returns nil they survive the
// death of the process, or their loss has been told: after an error there is none
// until the next try, which writes all that is known.
func (s *stateDir) record(known *gateway.Bindings, now time.Time, learned []egress.Binding) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.gone, s.broken && now.Before(s.retry):
		return nil
	case s.broken, s.records > maxRecords:
		return s.rewrite(known, now)
	}
	s.records += len(learned)
	if err := s.journal.Append(learned); err != nil {
		s.broken = true
		return err
	}
	return nil
}

// compact writes the journal anew, without what is over.
func (s *stateDir) compact(known *gateway.Bindings, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rewrite(known, now)
}

func (s *stateDir) rewrite(known *gateway.Bindings, now time.Time) error {
	s.broken, s.retry = true, now.Add(retryAfter)
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
	path := s.path(journalFile)
	if err := replaceFile(path, func(f *os.File) error { return gateway.WriteJournal(f, known.All(now)) }); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	s.file, s.journal, s.broken, s.records = f, gateway.NewJournal(f), false, 0
	return nil
}
