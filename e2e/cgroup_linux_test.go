package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// cgroupPrefix is followed by the outer process's id.
const cgroupPrefix = "tidegate-e2e-"

// cgroup is the parent of this run's containers: no namespace contains what the kubelet and runc make of cgroups.
func cgroup() string { return os.Getenv(inside) }

// hierarchies are the cgroup file systems: one in version 2, one for each controller in version 1.
func hierarchies() []string {
	const mounts = "/sys/fs/cgroup"
	if _, err := os.Stat(mounts + "/cgroup.procs"); err == nil {
		return []string{mounts}
	}
	roots, _ := filepath.Glob(mounts + "/*/cgroup.procs")
	for i := range roots {
		roots[i] = filepath.Dir(roots[i])
	}
	return roots
}

// makeCgroups makes this run's, which the kubelet wants to be there, and removes what runs that were killed have left.
func makeCgroups() (string, error) {
	if err := removeCgroups(cgroupPrefix + "*"); err != nil {
		return "", fmt.Errorf("remove what an earlier run has left: %w", err)
	}
	name := cgroupPrefix + strconv.Itoa(os.Getpid())
	for _, root := range hierarchies() {
		if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
			return "", fmt.Errorf("make the containers' cgroup: %w", err)
		}
	}
	return name, nil
}

// removeCgroups removes what is left of containers, whose processes are gone, except those of a run that goes on.
func removeCgroups(pattern string) error {
	var left error
	for _, root := range hierarchies() {
		found, _ := filepath.Glob(filepath.Join(root, pattern))
		for _, cgroup := range found {
			pid := strings.TrimPrefix(filepath.Base(cgroup), cgroupPrefix)
			if _, err := os.Stat("/proc/" + pid); err == nil && pid != strconv.Itoa(os.Getpid()) {
				continue
			}
			left = errors.Join(left, removeTree(cgroup))
		}
	}
	return left
}

// removeTree removes cgroups, which have files that cannot be removed and go by themselves, children first.
func removeTree(cgroup string) error {
	var all []string
	err := filepath.WalkDir(cgroup, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			all = append(all, path)
		}
		return err
	})
	for i := range all {
		err = errors.Join(err, os.Remove(all[len(all)-1-i]))
	}
	return err
}
