package controlplane

import (
	"errors"
	"net/http/httptrace"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestAPIServersShareEtcdAndComeBack(t *testing.T) {
	cp := New(t, Options{APIServers: 2})
	ctx := t.Context()
	first := newClient(t, cp.Config())
	config := cp.Config()
	config.Host = cp.URLs()[1]
	second := newClient(t, config)

	write(t, cp, "before")
	if _, err := second.CoreV1().Namespaces().Get(ctx, "before", metav1.GetOptions{}); err != nil {
		t.Errorf("read through the second what was written through the first: %v", err)
	}

	if err := cp.Kill(APIServer); err != nil {
		t.Fatal(err)
	}
	if _, err := first.CoreV1().Namespaces().Get(ctx, "before", metav1.GetOptions{}); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("call a killed API server: %v, want %v", err, syscall.ECONNREFUSED)
	}
	if _, err := cp.Pid(APIServer); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Pid of a killed API server: %v, want %v", err, ErrNotRunning)
	}
	if err := cp.Ready(ctx, APIServerN(1)); err != nil {
		t.Errorf("the other API server: %v", err)
	}
	if err := cp.Restart(ctx, APIServer); err != nil {
		t.Fatal(err)
	}
	if _, err := first.CoreV1().Namespaces().Get(ctx, "before", metav1.GetOptions{}); err != nil {
		t.Errorf("call a restarted API server at its old address: %v", err)
	}
}

func TestRestartKeepsData(t *testing.T) {
	cp := New(t, Options{})
	write(t, cp, "kept")
	before, err := cp.Pid(APIServer)
	if err != nil {
		t.Fatal(err)
	}
	if err := cp.Restart(t.Context(), APIServer); err != nil {
		t.Fatal(err)
	}
	if after, err := cp.Pid(APIServer); after == before || err != nil {
		t.Errorf("pid after Restart: %d, %v; it was %d", after, err, before)
	}
	if err := cp.Kill(Etcd); err != nil {
		t.Fatal(err)
	}
	if err := cp.Restart(t.Context(), Etcd); err != nil {
		t.Fatal(err)
	}
	if err := cp.Ready(t.Context(), APIServer); err != nil {
		t.Fatal(err)
	}
	if _, err := newClient(t, cp.Config()).CoreV1().Namespaces().Get(t.Context(), "kept", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}

func TestFrozenAPIServerAnswersWhenThawed(t *testing.T) {
	cp := New(t, Options{})
	client := newClient(t, cp.Config())
	if err := cp.Freeze(APIServer); err != nil {
		t.Fatal(err)
	}
	// TCP connections are accepted by the kernel alone.
	connected := make(chan struct{})
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		TLSHandshakeStart: func() { close(connected) },
	})
	answer := make(chan error, 1)
	go func() {
		_, err := client.CoreV1().Namespaces().Get(ctx, "default", metav1.GetOptions{})
		answer <- err
	}()
	<-connected
	select {
	case err := <-answer:
		t.Errorf("a frozen API server answered: %v", err)
	default:
	}
	if err := cp.Thaw(APIServer); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; err != nil {
		t.Errorf("after Thaw: %v", err)
	}
}

func TestStopEndsFrozenParts(t *testing.T) {
	for _, c := range []struct {
		name, dir string
	}{{"temporary-directory", ""}, {"kept-directory", t.TempDir()}} {
		t.Run(c.name, func(t *testing.T) {
			cp := New(t, Options{Dir: c.dir})
			for _, part := range []Part{APIServer, Etcd} {
				if err := cp.Freeze(part); err != nil {
					t.Fatal(err)
				}
			}
			cp.Stop()
			if _, err := cp.Pid(APIServer); !errors.Is(err, ErrNotRunning) {
				t.Errorf("after Stop: %v, want %v", err, ErrNotRunning)
			}
			if err := cp.Restart(t.Context(), Etcd); err == nil {
				t.Error("Restart after Stop: no error")
			}
			if kept := exists(cp.Dir()); kept != (c.dir != "") {
				t.Errorf("directory %s is there: %v", cp.Dir(), kept)
			}
		})
	}
}

func TestFailedStartShowsLog(t *testing.T) {
	_, err := Start(t.Context(), Options{Flags: map[Part][]string{APIServer: {"--no-such-flag"}}})
	if err == nil || !strings.Contains(err.Error(), "unknown flag: --no-such-flag") {
		t.Errorf("error %v does not say what the API server wrote", err)
	}
}

func TestFlagsReplaceOnesOfTheSameName(t *testing.T) {
	cp := New(t, Options{
		Flags: map[Part][]string{APIServer: {"--authorization-mode=AlwaysAllow"}},
		Users: []User{{Name: "ann"}},
	})
	client := newClient(t, cp.ConfigFor(cp.Token("ann")))
	if _, err := client.CoreV1().Secrets("kube-system").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
}

func TestUnknownPart(t *testing.T) {
	cp := New(t, Options{})
	if err := cp.Kill(Kwok); !errors.Is(err, ErrNoPart) {
		t.Errorf("Kill(Kwok) = %v, want %v", err, ErrNoPart)
	}
	if err := cp.Kill(APIServerN(1)); !errors.Is(err, ErrNoPart) {
		t.Errorf("Kill(APIServerN(1)) = %v, want %v", err, ErrNoPart)
	}
}

// write makes a namespace through the first API server.
func write(t *testing.T, cp *ControlPlane, name string) {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	_, err := newClient(t, cp.Config()).CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
}
