package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A process is a process id.
type process int

// cpu is the user and system time that the process has taken so far. It is what
// /proc/<pid>/stat shows as utime and stime, only not in hundredths of seconds.
func (p process) cpu(b *testing.B) time.Duration {
	b.Helper()
	if p == 0 {
		return 0
	}
	var ts unix.Timespec
	// As clock_getcpuclockid(3) makes clock ids.
	if err := unix.ClockGettime(^int32(p)<<3|unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		b.Fatalf("read the CPU clock of process %d: %v", p, err)
	}
	return time.Duration(ts.Nano())
}

// resident is the process's memory in MiB, and the most it has been since the
// last call of forgetPeak.
func (p process) resident(b *testing.B) (now, peak float64) {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p))
	if err != nil {
		b.Fatal(err)
	}
	return field(b, string(text), "VmRSS:"), field(b, string(text), "VmHWM:")
}

func field(b *testing.B, status, name string) float64 {
	b.Helper()
	_, rest, _ := strings.Cut(status, name)
	words := strings.Fields(rest)
	if len(words) == 0 {
		b.Fatalf("the kernel does not say %s", name)
	}
	kib, err := strconv.ParseFloat(words[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return kib / (1 << 10)
}

// written is how many bytes the process has written so far, to sockets and files.
func (p process) written(b *testing.B) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", p))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "wchar:")
	line, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseFloat(strings.TrimSpace(line), 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// forgetPeak starts the peak anew (proc(5), clear_refs).
func (p process) forgetPeak(b *testing.B) {
	b.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p), []byte("5"), 0); err != nil {
		b.Fatal(err)
	}
}

// cost is what a road took in a measurement.
type cost struct{ server, behind time.Duration }

// measure runs f and returns what the processes on the road took meanwhile.
func (r road) measure(b *testing.B, f func()) cost {
	b.Helper()
	server, behind := r.server.cpu(b), r.behind.cpu(b)
	f()
	return cost{r.server.cpu(b) - server, r.behind.cpu(b) - behind}
}
