package controlplane

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// childAttributes put a part in a process group of its own, so that a
// terminal's Ctrl-C reaches only us and we stop the parts in order, and make
// the kernel kill it should this process die first.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// awaitExit returns when the child has ended but still holds its process id,
// so that signalling its group cannot hit a stranger.
func awaitExit(pid int) { await(pid, unix.WEXITED) }

// awaitStopped returns when all threads of the child are stopped, or it ended.
func awaitStopped(pid int) { await(pid, unix.WSTOPPED|unix.WEXITED) }

func await(pid, state int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, state|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
