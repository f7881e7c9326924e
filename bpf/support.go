package bpf

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/rlimit"
)

// A need is something the programs use that not every kernel has.
type need struct {
	what  string
	probe func() error
}

func helper(f asm.BuiltinFunc) need {
	what := "helper " + strings.ToLower(strings.TrimPrefix(f.String(), "Fn"))
	return need{what, func() error { return features.HaveProgramHelper(ebpf.CGroupSockAddr, f) }}
}

func mapType(t ebpf.MapType) need {
	return need{"map type " + t.String(), func() error { return features.HaveMapType(t) }}
}

var needs = []need{
	{"program type cgroup/sock_addr (CONFIG_CGROUP_BPF)", func() error { return features.HaveProgramType(ebpf.CGroupSockAddr) }},
	mapType(ebpf.SkStorage),
	mapType(ebpf.LRUHash),
	mapType(ebpf.RingBuf),
	helper(asm.FnSkStorageGet),
	helper(asm.FnGetSocketCookie),
	helper(asm.FnGetNetnsCookie),
	helper(asm.FnGetCurrentCgroupId),
	helper(asm.FnGetCurrentAncestorCgroupId),
	helper(asm.FnKtimeGetCoarseNs),
	helper(asm.FnSetRetval),
	helper(asm.FnRingbufReserve),
}

// Supported returns an error that wraps [ErrNotSupported] and names what is
// missing if this kernel cannot run the programs, or a process may not ask it.
func Supported() error {
	// Before 5.11 the kernel counts maps as locked memory.
	if err := rlimit.RemoveMemlock(); err != nil {
		return fmt.Errorf("raise limit of locked memory: %w", err)
	}
	return supported(needs)
}

func supported(needs []need) error {
	for _, n := range needs {
		if err := n.probe(); err != nil {
			return fmt.Errorf("redirecting needs the kernel's %s: %w", n.what, explain(err))
		}
	}
	return nil
}

// hasMultipath says whether there is Multipath TCP, and whether programs can find
// the socket that a path of it belongs to (Linux 5.19, with BTF).
func hasMultipath() bool {
	for _, path := range []string{"/proc/sys/net/mptcp", "/sys/kernel/btf/vmlinux"} {
		if _, err := os.Stat(path); err != nil {
			return false
		}
	}
	return helper(asm.FnSkcToMptcpSock).probe() == nil
}

// explain makes an error of the kernel one line, and lets it be told by
// [ErrNotSupported] and [ErrFull].
func explain(err error) error {
	var verifier *ebpf.VerifierError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("%w (%w)", ErrNotSupported, err)
	case isFull(err):
		return fmt.Errorf("%w (%w)", ErrFull, err)
	case errors.As(err, &verifier) && len(verifier.Log) > 0:
		return fmt.Errorf("%w: the verifier says: %s (%w)", ErrNotSupported, lastWord(verifier.Log), verifier.Cause)
	}
	return err
}

// lastWord is the line of a verifier's log that names the reason: the last one
// that is not about its own work.
func lastWord(log []string) string {
	for _, line := range slices.Backward(log) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "processed ") && !strings.HasPrefix(line, "verification time") {
			return line
		}
	}
	return "nothing"
}
