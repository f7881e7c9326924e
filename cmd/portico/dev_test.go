package main

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
)

func TestOwnKubeconfigIsRefused(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	for _, name := range []string{"kubeconfig", "direct.kubeconfig"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("kind: Config\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(dir, "kubeconfig"), link); err != nil {
		t.Fatal(err)
	}
	for _, kubeconfig := range []string{filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "direct.kubeconfig"), link} {
		t.Setenv("KUBECONFIG", kubeconfig)
		cmd := newDevCommand()
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		cmd.SetArgs([]string{"--dir=" + dir})
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "unset KUBECONFIG") {
			t.Errorf("with %s: %v", kubeconfig, err)
		}
	}
}

func TestWhatKeepsTheStartIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := errors.New("connection refused")
		started := time.Now()
		p := &proxy{ready: map[string]healthz.Checker{
			"policies": func(*http.Request) error { return nil },
			"upstream": func(*http.Request) error {
				if time.Since(started) < time.Minute {
					return gone
				}
				return nil
			},
		}}
		var out bytes.Buffer
		if err := p.awaitReady(t.Context(), nil, &out); err != nil {
			t.Fatal(err)
		}
		if want := "Waiting until the proxy is ready: upstream: connection refused\n"; out.String() != want {
			t.Errorf("told %q, want %q", out.String(), want)
		}
	})
}

func TestEachLineIsLoggedOnce(t *testing.T) {
	before := klog.CaptureState()
	t.Cleanup(before.Restore)
	var log bytes.Buffer
	logOnlyTo(&log)
	klog.Background().Error(errors.New("it failed"), "an error")
	klog.Background().Info("a word")
	klog.Warning("a warning")
	klog.Flush()
	for _, text := range []string{"an error", "a word", "a warning"} {
		if n := strings.Count(log.String(), text); n != 1 {
			t.Errorf("%q is there %d times: %s", text, n, &log)
		}
	}
}
