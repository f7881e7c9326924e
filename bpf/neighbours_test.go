//go:build linux

package bpf

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

func TestProgramsOfOthersAreNamed(t *testing.T) {
	r := steer(t, Table{})
	if got, err := r.Neighbours(); err != nil || len(got) != 0 {
		t.Errorf("neighbours are %v, error %v; want none", got, err)
	}
	l, err := attachStranger(lab, asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got, err := r.Neighbours()
	if err != nil || len(got) != 1 || got[0] != "connect4: stranger" {
		t.Errorf("neighbours are %v, error %v; want the stranger", got, err)
	}
}

// Of two that change destinations, the second one sees what the first one made of
// them. Ours is the first, though it came last.
func TestProgramsOfOthersComeAfterOurs(t *testing.T) {
	n := newNetns(t)
	var key asm.Instructions
	key = append(key,
		asm.LoadMem(asm.R2, asm.R1, 4, asm.Word), // user_ip4
		asm.Mov.Imm(asm.R0, 1),
		asm.JNE.Imm32(asm.R2, int32(binary.NativeEndian.Uint32([]byte{10, 96, 0, 1})), "out"),
		asm.Mov.Imm(asm.R0, 0), // refuses what was not translated
		asm.Return().WithSymbol("out"),
	)
	l, err := attachStranger(lab, key)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, _, err := n.ask("tcp", vip); !errors.Is(err, unix.EPERM) {
		t.Fatalf("the stranger does not refuse: %v", err)
	}
	steer(t, Table{front(vip, TCP): service("s", n.listen(t, "127.0.0.5:0", "backend"))})
	if _, _, err := n.ask("tcp", vip); errors.Is(err, unix.EPERM) {
		t.Skip("this kernel attaches in no other order than that of arrival (it can since Linux 6.17)")
	}
	n.mustAsk(t, "tcp", vip, "backend")
}

func attachStranger(cgroup string, body asm.Instructions) (link.Link, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "stranger", Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect, Instructions: body, License: "Apache-2.0",
	})
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: ebpf.AttachCGroupInet4Connect, Program: p})
}
