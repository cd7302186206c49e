//go:build linux

package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A Keeper keeps descriptors for the gateway, and gives them to the next process when it has died, as systemd does for the
// unit that comes with it (FileDescriptorStoreMax=).
type Keeper struct {
	dir  string
	conn *net.UnixConn

	mu    sync.Mutex
	files map[string]*os.File
}

// NewKeeper returns one that has nothing. Close drops what it keeps.
func NewKeeper() (*Keeper, error) {
	dir, err := os.MkdirTemp("", "tidegate-keeper-")
	if err != nil {
		return nil, fmt.Errorf("keep descriptors: %w", err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("keep descriptors: %w", err), os.RemoveAll(dir))
	}
	k := &Keeper{dir: dir, conn: conn, files: map[string]*os.File{}}
	go k.serve()
	return k, nil
}

// Close drops everything.
func (k *Keeper) Close() error {
	err := errors.Join(k.conn.Close(), os.RemoveAll(k.dir))
	k.mu.Lock()
	defer k.mu.Unlock()
	for name := range k.files {
		k.drop(name)
	}
	return err
}

// Start starts cmd by start, as one for whose process k keeps descriptors, and passes those that it has. Nothing is dropped
// meanwhile.
func (k *Keeper) Start(cmd *exec.Cmd, start func(*exec.Cmd) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.attend(cmd); err != nil {
		return err
	}
	return start(cmd)
}

func (k *Keeper) attend(cmd *exec.Cmd) error {
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+filepath.Join(k.dir, "notify"), "FDSTORE=1")
	if len(k.files) == 0 {
		return nil
	}
	var names []string
	for name, f := range k.files {
		names = append(names, name)
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	cmd.Env = append(cmd.Env, fmt.Sprint("LISTEN_FDS=", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	// The process is named, which is not known before it starts. In a shell /proc/self is the shell, and what a program is
	// called is its file's name.
	program := filepath.Join(k.dir, filepath.Base(cmd.Args[0]))
	path := strings.Replace(cmd.Path, "/proc/self/", fmt.Sprintf("/proc/%d/", os.Getpid()), 1)
	if err := os.Symlink(path, program); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("pass descriptors: %w", err)
	}
	cmd.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh", program}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
	return nil
}

// serve does what the messages say, one after the other: who sends a pipe as a barrier sees it closed behind them.
func (k *Keeper) serve() {
	message, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(16*4))
	for {
		n, oobn, _, _, err := k.conn.ReadMsgUnix(message, oob)
		if err != nil {
			return
		}
		said := map[string]string{}
		for line := range strings.Lines(string(message[:n])) {
			key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			said[key] = value
		}
		k.handle(said, descriptors(oob[:oobn]))
	}
}

func (k *Keeper) handle(said map[string]string, files []*os.File) {
	k.mu.Lock()
	defer k.mu.Unlock()
	name := said["FDNAME"]
	if said["FDSTOREREMOVE"] == "1" {
		k.drop(name)
	}
	for _, f := range files {
		if said["FDSTORE"] == "1" && k.files[name] == nil {
			k.files[name] = f
		} else {
			_ = f.Close()
		}
	}
}

// drop closes what is kept by a name.
func (k *Keeper) drop(name string) {
	if f := k.files[name]; f != nil {
		_ = f.Close()
	}
	delete(k.files, name)
}

// descriptors are those that came with a message.
func descriptors(oob []byte) (files []*os.File) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "kept"))
		}
	}
	return files
}
