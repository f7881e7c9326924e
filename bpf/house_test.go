package bpf

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	gocmp "github.com/google/go-cmp/cmp"
)

// What is committed as compiled must come from the source beside it.
func TestGeneratedFilesAreOfThisSource(t *testing.T) {
	var sums strings.Builder
	for _, name := range []string{"end.c", "kernel.h", "redirect.c", "socket.h"} {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(source), name)
	}
	recorded, err := os.ReadFile("redirect.sha256")
	if err != nil {
		t.Fatal(err)
	}
	if string(recorded) != sums.String() {
		t.Error("the C source was changed after the programs were compiled: run go generate ./bpf and commit what it makes")
	}
}

func TestCompilingAgainGivesTheSamePrograms(t *testing.T) {
	cc, strip := cmp.Or(os.Getenv("BPF2GO_CC"), "clang"), cmp.Or(os.Getenv("BPF2GO_STRIP"), "llvm-strip")
	for _, tool := range []string{cc, strip} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs clang: ", err)
		}
	}
	object := filepath.Join(t.TempDir(), "redirect.o")
	out, err := exec.Command(cc, "-O2", "-g", "-mcpu=v3", "-Wall", "-Werror", "-target", "bpfel", "-c", "redirect.c", "-o", object).CombinedOutput()
	if err != nil {
		t.Fatalf("compile: %v\n%s", err, out)
	}
	again, err := ebpf.LoadCollectionSpec(object)
	if err != nil {
		t.Fatal(err)
	}
	committed, err := ebpf.LoadCollectionSpec("redirect_bpfel.o")
	if err != nil {
		t.Fatal(err)
	}
	for name := range committed.Programs {
		if a, b := again.Programs[name], committed.Programs[name]; a == nil || len(a.Instructions) != len(b.Instructions) {
			t.Errorf("%s compiles to something else here; if this is the clang to use, run go generate ./bpf and commit what it makes", name)
		}
	}
}

// Processes of one schema share maps. Whoever changes what a map looks like must
// raise the schema, and then this.
func TestMapsLookAsTheirSchemaSays(t *testing.T) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(_RedirectBytes))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for name, m := range spec.Maps {
		if !strings.HasPrefix(name, ".") {
			got = append(got, fmt.Sprintf("%s %s %d %d", name, m.Type, m.KeySize, m.ValueSize))
		}
	}
	slices.Sort(got)
	want := map[int][]string{2: {
		"affinity LRUHash 16 16",
		"backends Hash 8 28",
		"classes Hash 16 4",
		"counts Array 4 48",
		"events RingBuf 0 0",
		"flows LRUHash 32 20",
		"frontends Hash 20 112",
		"lease Array 4 8",
		"members Hash 8 4",
		"owners Hash 4 128",
		"peers Array 4 48",
		"settings Array 4 24",
		"translations SkStorage 4 88",
	}}
	if diff := gocmp.Diff(want[schema], got); diff != "" {
		t.Errorf("maps of schema %d differ (-want +got):\n%s", schema, diff)
	}
}

func TestMissingFeaturesAreNamed(t *testing.T) {
	some := []need{
		{"cgroups", func() error { return nil }},
		{"helper bpf_make_tea", func() error { return fmt.Errorf("unknown func: %w", ebpf.ErrNotSupported) }},
	}
	err := supported(some)
	if !errors.Is(err, ErrNotSupported) || !strings.Contains(err.Error(), "bpf_make_tea") || strings.Contains(err.Error(), "\n") {
		t.Errorf("the error is %v; want one line that names the helper", err)
	}
	if err := supported(some[:1]); err != nil {
		t.Error(err)
	}
}

func TestAVerifierErrorBecomesOneLine(t *testing.T) {
	err := explain(&ebpf.VerifierError{
		Cause: errors.New("invalid argument"),
		Log:   []string{"0: R1=ctx()", "0: (85) call bpf_make_tea#999", "invalid func bpf_make_tea#999", "processed 1 insns", ""},
	})
	if !errors.Is(err, ErrNotSupported) || !strings.Contains(err.Error(), "invalid func bpf_make_tea#999") || strings.Contains(err.Error(), "\n") {
		t.Errorf("the error is %v", err)
	}
}

func TestCgroupsAreFoundAmongMounts(t *testing.T) {
	const (
		v1      = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
		unified = "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
		hybrid  = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
		spaces  = `41 31 0:38 / /mnt/c\040group rw - cgroup2 none rw` + "\n"
		part    = "900 899 0:30 /../../pod7 /sys/fs/cgroup ro - cgroup2 cgroup rw\n"
	)
	for _, c := range []struct {
		name, mounts, want string
	}{
		{"unified", unified, "/sys/fs/cgroup"},
		{"hybrid", v1 + hybrid, "/sys/fs/cgroup/unified"},
		{"blank", spaces, "/mnt/c group"},
		{"part-and-whole", part + unified, "/sys/fs/cgroup"},
		{"only-v1", v1, ""},
		{"only-a-part", part, ""},
		{"nonsense", "cgroup2\n - cgroup2\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := findCgroup(strings.NewReader(c.mounts))
			if got != c.want || (err != nil) != (c.want == "") || err != nil && !errors.Is(err, ErrNoCgroup) {
				t.Errorf("found %q, error %v; want %q", got, err, c.want)
			}
		})
	}
}
