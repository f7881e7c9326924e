package abuse

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// What is measured is how the proxy shares itself out, not how the kernel shares two
// processors among everybody on this machine. So attackers have what others leave:
// they are idle processes to the kernel, and the others real-time ones. Either alone
// is not enough. The lowest priority of ordinary processes keeps others waiting for
// some milliseconds at each step of a request; and where ordinary processes wait for
// one processor, the kernel does not see that the other has only idle ones to run.

// giveWay has this process run when nobody else wants to.
func giveWay() error {
	return schedule("self", unix.SchedAttr{Policy: unix.SCHED_IDLE})
}

// takePrecedence has this process and those that it has started run before others,
// and so will those that they start. The kernel keeps a twentieth of the time for
// others (sched_rt_runtime_us).
func takePrecedence(t *testing.T) {
	t.Helper()
	for _, pid := range family() {
		if err := schedule(pid, unix.SchedAttr{Policy: unix.SCHED_RR, Priority: 1}); err != nil {
			t.Logf("nobody takes precedence over the attackers but by their being idle: %v", err)
			return
		}
	}
}

// schedule has the kernel schedule all threads of a process so. Those that it will
// start are as those that start them.
func schedule(pid string, as unix.SchedAttr) error {
	as.Size = unix.SizeofSchedAttr
	threads, err := filepath.Glob(filepath.Join("/proc", pid, "task", "*"))
	if err != nil || len(threads) == 0 {
		return fmt.Errorf("find the threads of %s in /proc: %w", pid, errors.Join(err, os.ErrNotExist))
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(filepath.Base(thread))
		if err != nil {
			return fmt.Errorf("read a thread's number: %w", err)
		}
		if err := unix.SchedSetAttr(id, &as, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("schedule thread %d of %s: %w", id, pid, err)
		}
	}
	return nil
}
