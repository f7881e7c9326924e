package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// mountTable is where a process sees what is mounted.
const mountTable = "/proc/self/mountinfo"

// FindCgroup returns where the root of the cgroup2 hierarchy is mounted. It
// mounts nothing: on some hosts the usual place holds cgroup1 hierarchies, and
// what is mounted over them cuts off whoever uses them.
func FindCgroup() (string, error) {
	f, err := os.Open(mountTable)
	if err != nil {
		return "", fmt.Errorf("find cgroup2: %w", err)
	}
	defer f.Close()
	root, err := findCgroup(f)
	if err != nil {
		return "", fmt.Errorf("find cgroup2: %w", err)
	}
	whole, err := isRoot(root)
	if err != nil {
		return "", fmt.Errorf("find cgroup2: %w", err)
	}
	if !whole {
		return "", fmt.Errorf("find cgroup2: %w: %s is only this process's part of one: run it in the host's cgroup namespace, or name a directory", ErrNoCgroup, root)
	}
	return root, nil
}

// findCgroup reads a mountinfo, as proc_pid_mountinfo(5) describes it.
func findCgroup(mounts io.Reader) (string, error) {
	narrow := ""
	lines := bufio.NewScanner(mounts)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(kind) == 0 || kind[0] != "cgroup2" {
			continue
		}
		if fields[3] == "/" {
			return unescape(fields[4]), nil
		}
		narrow = unescape(fields[4])
	}
	if err := lines.Err(); err != nil {
		return "", err
	}
	if narrow != "" {
		return "", fmt.Errorf("%w: %s is only a part of one: mount the host's, or name a directory", ErrNoCgroup, narrow)
	}
	return "", fmt.Errorf("%w: mount one (mount -t cgroup2 none /sys/fs/cgroup/unified), or name a directory", ErrNoCgroup)
}

// unescape undoes the octal escapes of blanks and backslashes in a mountinfo.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func checkCgroup(dir string) error {
	on, err := onCgroup2(dir)
	if err != nil {
		return fmt.Errorf("look at cgroup: %w", err)
	}
	if !on {
		return fmt.Errorf("use cgroup %s: %w", dir, ErrNoCgroup)
	}
	return nil
}

// isRoot says whether a cgroup is the hierarchy's root. In a cgroup namespace,
// what is mounted as the root is only the container's cgroup, and programs
// attached there would steer nobody else.
func isRoot(dir string) (bool, error) {
	// Only the root has no such file (cgroup-v2.rst, "Core Interface Files").
	_, err := os.Stat(dir + "/cgroup.type")
	if errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	return false, err
}
