package abuse

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/portico-proxy/portico/test/proxy"
)

// spent is the processor time that processes have taken, by their names.
type spent map[string]time.Duration

// children are this process and those that it has started, and what they have spent
// so far. Where there is no /proc there are none.
func children(t *testing.T) spent {
	t.Helper()
	sum := spent{}
	for _, pid := range family() {
		name, _, fields, ok := stat(pid)
		if !ok {
			continue
		}
		if pid == own {
			name = "caller"
		}
		sum[name] += ticks(fields[11]) + ticks(fields[12])
	}
	return sum
}

var own = strconv.Itoa(os.Getpid())

// family is this process and those that it has started.
func family() (pids []string) {
	all, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range all {
		pid := filepath.Base(filepath.Dir(path))
		if _, parent, _, ok := stat(pid); ok && (pid == own || parent == own) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// stat is what the kernel tells of a process in a line, unless it has ended.
func stat(pid string) (name, parent string, fields []string, ok bool) {
	text, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return "", "", nil, false
	}
	_, rest, _ := strings.Cut(string(text), "(")
	name, rest, _ = strings.Cut(rest, ") ")
	if fields = strings.Fields(rest); len(fields) < 13 {
		return "", "", nil, false
	}
	return name, fields[1], fields, true
}

// ticks are hundredths of a second, as all of Linux has them.
func ticks(text string) time.Duration {
	n, _ := strconv.ParseInt(text, 10, 64)
	return time.Duration(n) * 10 * time.Millisecond
}

// since says which part of a processor each had since before, in percent.
func (s spent) since(before spent, took time.Duration) string {
	var of []string
	for name, all := range s {
		if part := 100 * (all - before[name]) / took; part > 0 {
			of = append(of, fmt.Sprintf("%s %d %%", name, part))
		}
	}
	slices.Sort(of)
	return strings.Join(of, ", ")
}

// profile keeps what the proxy did for so long, where PORTICO_ABUSE_PROFILES names a
// directory.
func profile(t *testing.T, p *proxy.Proxy, name string, length time.Duration) (done func()) {
	t.Helper()
	dir := os.Getenv("PORTICO_ABUSE_PROFILES")
	if dir == "" {
		return func() {}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		url := strings.TrimSuffix(p.Metrics, "/metrics") + fmt.Sprintf("/debug/pprof/profile?seconds=%d", max(1, int(length.Seconds())-1))
		if err := fetch(t, url, filepath.Join(dir, name+".pprof")); err != nil {
			t.Errorf("profile %s: %v", name, err)
		}
	}()
	return func() { <-ended }
}

func fetch(t *testing.T, url, path string) error {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}
