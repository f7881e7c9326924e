package kubectl

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

// streamTimeout bounds how long a stream may be idle, or take to begin.
const streamTimeout = time.Minute

// kubelet serves the pods of one node with the kubelet's own protocol
// libraries. Unlike kwok's, its commands see their input end and tell their
// exit code, and its logs end. Commands run on this machine.
type kubelet struct{}

// startKubelet makes a node whose pods a kubelet of this test serves.
func startKubelet(t *testing.T, node string) {
	t.Helper()
	certPEM, keyPEM, err := cp.ServerCert(node, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(kubelet{}.handler())
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	s.StartTLS()
	t.Cleanup(s.Close)

	connections, err := rest.HTTPClientFor(cp.Config())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(connections.CloseIdleConnections)
	client, err := kubernetes.NewForConfigAndClient(cp.Config(), connections)
	if err != nil {
		t.Fatal(err)
	}
	object := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: node},
		Spec:       corev1.NodeSpec{Unschedulable: true},
		Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}},
			DaemonEndpoints: corev1.NodeDaemonEndpoints{
				KubeletEndpoint: corev1.DaemonEndpoint{Port: int32(s.Listener.Addr().(*net.TCPAddr).Port)},
			},
		},
	}
	if _, err := client.CoreV1().Nodes().Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.CoreV1().Nodes().Delete(context.Background(), node, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
}

// handler serves the paths that the API server asks of a kubelet.
func (k kubelet) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/exec/{namespace}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) {
		streams, err := remotecommand.NewOptions(r)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		remotecommand.ServeExec(w, r, k, r.PathValue("pod"), "", r.PathValue("container"), r.URL.Query()["command"],
			streams, streamTimeout, streamTimeout, remotecommand.SupportedStreamingProtocols)
	})
	mux.HandleFunc("/attach/{namespace}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) {
		streams, err := remotecommand.NewOptions(r)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		remotecommand.ServeAttach(w, r, k, r.PathValue("pod"), "", r.PathValue("container"),
			streams, streamTimeout, streamTimeout, remotecommand.SupportedStreamingProtocols)
	})
	mux.HandleFunc("/portForward/{namespace}/{pod}", func(w http.ResponseWriter, r *http.Request) {
		ports, err := portforward.NewV4Options(r)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		portforward.ServePortForward(w, r, k, r.PathValue("pod"), "", ports, streamTimeout, streamTimeout, portforward.SupportedProtocols)
	})
	mux.HandleFunc("/containerLogs/{namespace}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) {
		for n := range 3 {
			fmt.Fprintf(w, "line %d, asked for %s\n", n, r.URL.RawQuery)
			_ = http.NewResponseController(w).Flush()
		}
	})
	return mux
}

// ExecInContainer runs a command.
func (kubelet) ExecInContainer(ctx context.Context, _, _, _ string, command []string, in io.Reader, out, errs io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize, _ time.Duration) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = out, errs
	if in != nil {
		// Not cmd.Stdin: Wait would wait for the end of input that nobody ends.
		pipe, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		go func() {
			defer pipe.Close()
			_, _ = io.Copy(pipe, in)
		}()
	}
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return utilexec.CodeExitError{Err: err, Code: exit.ExitCode()}
	}
	return err
}

// AttachContainer greets and repeats what it reads.
func (kubelet) AttachContainer(_ context.Context, pod, _, _ string, in io.Reader, out, errs io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize) error {
	fmt.Fprintf(out, "this is %s\n", pod)
	if in != nil {
		if _, err := io.Copy(out, in); err != nil {
			return err
		}
	}
	fmt.Fprintln(errs, "that was all")
	return nil
}

// PortForward sends back what it is sent and then says good bye.
func (kubelet) PortForward(_ context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	if _, err := io.Copy(stream, stream); err != nil {
		return err
	}
	_, err := fmt.Fprintf(stream, "good bye from port %d", port)
	return err
}

var (
	_ remotecommand.Executor    = kubelet{}
	_ remotecommand.Attacher    = kubelet{}
	_ portforward.PortForwarder = kubelet{}
)
