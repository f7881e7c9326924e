package controlplane

import (
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
func awaitExit(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return
		}
	}
}
