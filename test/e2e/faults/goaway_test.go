package faults

import (
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// relay passes connections on and counts them.
type relay struct {
	listener net.Listener
	to       string
	accepted atomic.Int64
	open     sync.WaitGroup
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l, to: to}
	r.open.Go(r.serve)
	t.Cleanup(func() { l.Close(); r.open.Wait() })
	return r
}

func (r *relay) serve() {
	for {
		conn, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.accepted.Add(1)
		r.open.Go(func() { r.join(conn) })
	}
}

func (r *relay) join(conn net.Conn) {
	defer conn.Close()
	far, err := net.Dial("tcp", r.to)
	if err != nil {
		return
	}
	defer far.Close()
	done := make(chan struct{})
	go func() { defer close(done); _, _ = io.Copy(far, conn); far.Close() }()
	_, _ = io.Copy(conn, far)
	conn.Close()
	<-done
}

func TestNobodyNoticesGoAway(t *testing.T) {
	r := newRelay(t, address(0))
	p := before(t, "--server="+r.listener.Addr().String())
	makeConfigMaps(t, 4)
	remember(t, p)
	workers, stop := begin(t, p, 4, "watch", "get", "list", "remembered", "create", "apply")
	large := kubernetes.NewForConfigOrDie(p.Config(world.Token("admin")))
	const enough = 8
	for r.accepted.Load() < enough {
		// Too large to be kept, so it depends on the client to send it again.
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "large-"}, Data: map[string]string{"v": strings.Repeat("x", 300<<10)}}
		if _, err := large.CoreV1().ConfigMaps("default").Create(t.Context(), m, metav1.CreateOptions{DryRun: []string{"All"}}); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	for _, w := range workers {
		if gone, cut := w.gone.Load(), w.cut.Load(); gone+cut > 0 {
			t.Errorf("%s: %d times unavailable, %d times cut", w.kind, gone, cut)
		}
	}
}
