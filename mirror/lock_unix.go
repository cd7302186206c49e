//go:build unix

package mirror

import (
	"os"

	"golang.org/x/sys/unix"
)

// lockFile takes a file for this process until it is closed, or fails at once.
func lockFile(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }

// useFile says that a file is in use until it is closed: then nobody can lock it.
func useFile(f *os.File) { _ = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) }

// unlockFile lets others have it while it is open here.
func unlockFile(f *os.File) { _ = unix.Flock(int(f.Fd()), unix.LOCK_UN) }

// syncFolder makes the names in a folder survive a crash.
func syncFolder(d *os.File) error { return d.Sync() }
