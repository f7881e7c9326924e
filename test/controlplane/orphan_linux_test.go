package controlplane

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// orphanEnv makes this test binary start a control plane, print the process
// ids of its parts and wait to be killed.
const orphanEnv = "CONTROLPLANE_TEST_ORPHANS"

func orphanMain() {
	cp, err := Start(context.Background(), Options{Dir: os.Getenv(orphanEnv)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, part := range []Part{Etcd, APIServer} {
		pid, err := cp.Pid(part)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(pid)
	}
	select {}
}

func TestPartsDieWithTheirParent(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), orphanEnv+"="+t.TempDir())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var parts []unix.PollFd
	for lines := bufio.NewScanner(out); len(parts) < 2; {
		if !lines.Scan() {
			t.Fatal("the child ended early")
		}
		var pid int
		if _, err := fmt.Sscan(lines.Text(), &pid); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		parts = append(parts, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}

	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	for i := range parts {
		// A process's descriptor is readable once the process has ended.
		for {
			n, err := unix.Poll(parts[i:i+1], 30_000)
			if err == unix.EINTR {
				continue
			}
			if n != 1 || err != nil {
				t.Errorf("part %d outlived its parent: %v", i, err)
			}
			break
		}
	}
}
