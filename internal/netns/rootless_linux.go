package netns

import (
	"os"
	"os/exec"
	"syscall"
)

// Rootless makes cmd start in a user namespace of its own, where it is root over
// its own network namespaces and over nothing else, so that [New] works there
// for an ordinary user. It starts with a network namespace whose loopback is
// down. Where the system forbids user namespaces, cmd.Start fails; where it only
// takes their powers away, New fails inside.
//
// A process cannot enter a user namespace later on: it has to be started there.
func Rootless(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	a := cmd.SysProcAttr
	a.Cloneflags |= syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET
	a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	a.GidMappingsEnableSetgroups = false
}

// LoopbackUp raises the loopback device of the namespace that the process is in,
// for a process that [Rootless] started.
func LoopbackUp() error {
	f, err := openCurrent()
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := open(f)
	if err != nil {
		return err
	}
	defer n.handle.Close()
	return n.up("lo")
}
