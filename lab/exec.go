//go:build linux

package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxRequest bounds what a client may send: arguments and environment are at most this long for the kernel too.
const maxRequest = 2 << 20

// request is what Exec sends, after one byte that carries the descriptors of its standard input, output and error.
type request struct {
	Path string   `json:"path"` // of the program, absolute
	Args []string `json:"args"` // the first is the program as it was called
	Env  []string `json:"env"`
	Dir  string   `json:"dir"`
	Node int      `json:"node"`
}

// response comes when the command has ended.
type response struct {
	Code  int    `json:"code"`
	Error string `json:"error,omitempty"`
}

// Serve runs the commands that [Exec] asks for, on the nodes of l, until ctx is done. It works in a process that Enter
// has started.
func Serve(ctx context.Context, l *Lab) error {
	ln, err := net.FileListener(os.NewFile(doorFD, "door"))
	if err != nil {
		return fmt.Errorf("open the lab's door: %w", err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	for {
		c, err := ln.Accept()
		if ctx.Err() != nil {
			return nil
		} else if err != nil {
			return fmt.Errorf("the lab's door: %w", err)
		}
		wg.Go(func() {
			defer func() { _ = c.Close() }()
			stop := context.AfterFunc(ctx, func() { _ = c.Close() })
			defer stop()
			code, err := serveRequest(l, c.(*net.UnixConn))
			answer := response{Code: code}
			if err != nil {
				answer.Error = err.Error()
			}
			_ = json.NewEncoder(c).Encode(answer)
		})
	}
}

// serveRequest runs one command and returns its exit code.
func serveRequest(l *Lab, c *net.UnixConn) (int, error) {
	if err := sameUser(c); err != nil {
		return 0, err
	}
	files, err := receiveFiles(c)
	if err != nil {
		return 0, err
	}
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	in := bufio.NewReader(c)
	line, err := readLine(in)
	if err != nil {
		return 0, fmt.Errorf("read what to run: %w", err)
	}
	var req request
	if err := json.Unmarshal(line, &req); err != nil {
		return 0, fmt.Errorf("read what to run: %w", err)
	}
	if req.Node < 1 || req.Node > len(l.nodes) {
		return 0, fmt.Errorf("there is no node %d", req.Node)
	}
	cmd := &exec.Cmd{Path: req.Path, Args: req.Args, Env: l.Environ(req.Env), Dir: req.Dir}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[1], files[2]
	if err := l.Node(req.Node).Start(cmd); err != nil {
		return 0, err
	}
	go passSignals(in, cmd.Process.Pid)
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
			return 128 + int(s.Signal()), nil // as a shell says it
		}
		return exit.ExitCode(), nil
	}
	return 0, err
}

// readLine reads at most maxRequest bytes.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for len(line) < maxRequest {
		b, err := r.ReadByte()
		if err != nil {
			return nil, err
		}
		if b == '\n' {
			return line, nil
		}
		line = append(line, b)
	}
	return nil, fmt.Errorf("longer than %d bytes", maxRequest)
}

// passSignals gives the command each signal that the client got, a byte each, and kills it when the client is gone.
func passSignals(in io.ByteReader, pid int) {
	for {
		b, err := in.ReadByte()
		s := syscall.Signal(b)
		if err != nil {
			s = syscall.SIGKILL
		}
		_ = syscall.Kill(-pid, s) // its whole session's first group
		if err != nil {
			return
		}
	}
}

// receiveFiles takes the three descriptors that come with the first byte.
func receiveFiles(c *net.UnixConn) ([]*os.File, error) {
	const files = 3
	oob := make([]byte, unix.CmsgSpace(files*4))
	_, n, _, _, err := c.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return nil, fmt.Errorf("receive descriptors: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return nil, fmt.Errorf("receive descriptors: %w", err)
	}
	if len(messages) != 1 {
		return nil, errors.New("receive descriptors: none came")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, fmt.Errorf("receive descriptors: %w", err)
	}
	var got []*os.File
	for _, fd := range fds {
		unix.CloseOnExec(fd)
		got = append(got, os.NewFile(uintptr(fd), "passed"))
	}
	if len(got) != files {
		return got, fmt.Errorf("receive descriptors: %d came", len(got))
	}
	return got, nil
}

// sameUser refuses a peer that runs as somebody else.
func sameUser(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return err
	}
	if credErr != nil {
		return fmt.Errorf("find out who is there: %w", credErr)
	}
	if int(cred.Uid) != os.Getuid() {
		return fmt.Errorf("user %d is not the one who runs the lab", cred.Uid)
	}
	return nil
}

// Exec runs a command on a node of this user's lab, with this process's standard input, output and error, environment
// and directory, passes interrupts on, and returns the command's exit code.
func Exec(node int, args []string) (int, error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return 0, err
	}
	dir, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: doorName(), Net: "unix"})
	if err != nil {
		return 0, errors.New("no lab of yours runs; start one with: tidegate lab")
	}
	defer func() { _ = c.Close() }()
	if err := sameUser(c); err != nil {
		return 0, err
	}
	rights := unix.UnixRights(int(os.Stdin.Fd()), int(os.Stdout.Fd()), int(os.Stderr.Fd()))
	if _, _, err := c.WriteMsgUnix([]byte{0}, rights, nil); err != nil {
		return 0, fmt.Errorf("pass descriptors: %w", err)
	}
	if err := json.NewEncoder(c).Encode(request{Path: path, Args: args, Env: os.Environ(), Dir: dir, Node: node}); err != nil {
		return 0, fmt.Errorf("ask the lab: %w", err)
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	defer signal.Stop(signals)
	go func() {
		for s := range signals {
			_, _ = c.Write([]byte{byte(s.(syscall.Signal))})
		}
	}()
	var answer response
	if err := json.NewDecoder(c).Decode(&answer); err != nil {
		return 0, errors.New("the lab ended")
	}
	if answer.Error != "" {
		return 0, errors.New(answer.Error)
	}
	return answer.Code, nil
}
