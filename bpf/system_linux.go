package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func onBPFFS(path string) (bool, error) { return onFS(path, unix.BPF_FS_MAGIC) }

func onCgroup2(path string) (bool, error) { return onFS(path, unix.CGROUP2_SUPER_MAGIC) }

func onFS(path string, magic int64) (bool, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return false, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return int64(s.Type) == magic, nil //nolint:unconvert // its size differs between architectures
}

func lockFile(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrLocked
	}
	return err
}

// isGone says whether a link's cgroup was removed, and the link's end with it.
func isGone(err error) bool { return errors.Is(err, unix.ENOLINK) }

func isFull(err error) bool { return errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOSPC) }

// CgroupID returns the number by which the kernel knows the cgroup of a
// directory.
func CgroupID(dir string) (uint64, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return 0, fmt.Errorf("find cgroup's number: %w", err)
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, fmt.Errorf("find number of cgroup %s: %w", dir, ErrNotSupported)
	}
	return s.Ino, nil
}

// now is the time of CLOCK_MONOTONIC, by which leases run.
func now() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0, fmt.Errorf("read clock: %w", err)
	}
	return time.Duration(t.Nano()), nil
}

// processes is where every process shows the namespaces that it is in. In a
// container it must be the host's.
const processes = "/proc"

// eachNetns calls visit once in each network namespace that a process is in,
// on a thread that enters them. It goes on after an error.
func eachNetns(visit func() error) error {
	done := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine, wherever it is.
		runtime.LockOSThread()
		done <- visitNetns(visit)
	}()
	return <-done
}

func visitNetns(visit func() error) error {
	paths, err := filepath.Glob(filepath.Join(processes, "[0-9]*", "ns", "net"))
	if err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	var errs []error
	seen := map[string]bool{}
	for _, path := range paths {
		// It names the namespace, and cannot be read of a process that has ended.
		name, err := os.Readlink(path)
		if err != nil || seen[name] {
			continue
		}
		seen[name] = true
		errs = append(errs, inNetns(path, visit))
	}
	return errors.Join(errs...)
}

// inNetns leaves the thread in another namespace.
func inNetns(path string, visit func() error) error {
	ns, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	return visit()
}

// netnsCookie returns the number of the network namespace of the calling
// thread.
func netnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("read cookie of network namespace: %w", err)
	}
	return cookie, nil
}
