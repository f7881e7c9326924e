package storage

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.uber.org/zap"
)

// patience bounds what happens in another process.
const patience = time.Minute

// newEtcd starts an etcd with nothing in it: the suite counts revisions from
// the first. It ends with the test.
func newEtcd(t *testing.T) *kubernetes.Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "etcd-") //nolint:usetesting // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "client")
	peer := "unix://" + filepath.Join(dir, "peer")
	startEtcd(t, filepath.Join(dir, "log"),
		"--data-dir="+filepath.Join(dir, "data"),
		"--listen-client-urls=unix://"+socket, "--advertise-client-urls=unix://"+socket,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer,
		"--unsafe-no-fsync", "--log-level=error",
	)
	until(t, func() error {
		c, err := net.Dial("unix", socket)
		if err == nil {
			err = c.Close()
		}
		return err
	})
	client, err := kubernetes.New(clientv3.Config{Endpoints: []string{"unix://" + socket}, DialTimeout: patience, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := client.KV.Get(ctx, "ready"); err != nil {
		t.Fatal(err)
	}
	return client
}

// startEtcd runs etcd under a shell that ends it as soon as its input does: at
// the end of the test, or of this process, however that comes about.
func startEtcd(t *testing.T, log string, flags ...string) {
	t.Helper()
	script := `"$0" "$@" & read -r end; kill -KILL $!; wait`
	cmd := exec.Command("sh", append([]string{"-c", script, filepath.Join(programs, "etcd")}, flags...)...)
	out, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	cmd.Stdout, cmd.Stderr = out, out
	alive, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = alive.Close()
		_ = cmd.Wait()
		if said, err := os.ReadFile(log); err == nil && t.Failed() {
			t.Logf("etcd said:\n%s", said)
		}
	})
}

// until waits for something that happens elsewhere.
func until(t *testing.T, try func() error) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	enough := time.After(patience)
	for err := try(); err != nil; err = try() {
		select {
		case <-tick.C:
		case <-enough:
			t.Fatalf("waited in vain: %v", err)
		}
	}
}
