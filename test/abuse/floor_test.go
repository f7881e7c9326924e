package abuse

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// floorEnv makes this binary a server that does next to nothing: attacked, it shows
// what an attack costs others who have nothing to do with it but the processors.
const floorEnv = "PORTICO_FLOOR"

// serveAs serves with the certificate in text until standard input ends, and says
// where.
func serveAs(text string) int {
	var pair [2][]byte
	if err := json.Unmarshal([]byte(text), &pair); err != nil {
		fmt.Fprintln(os.Stderr, "read certificate:", err)
		return 2
	}
	cert, err := tls.X509KeyPair(pair[0], pair[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "read certificate:", err)
		return 2
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, "listen:", err)
		return 2
	}
	fmt.Println(l.Addr())
	srv := &http.Server{
		Handler: http.HandlerFunc(answerNothing), ReadHeaderTimeout: time.Minute, ErrorLog: nil,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13},
	}
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); _ = srv.Close() }()
	_ = srv.ServeTLS(l, "", "")
	return 0
}

// list is as long as that of all objects.
var list = bytes.Repeat([]byte("x"), objects*(4<<10))

func answerNothing(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	if !strings.Contains(r.URL.RawQuery, "limit=") && r.Method == http.MethodGet {
		_, _ = w.Write(list)
	}
}

// floor runs such a server until the test ends, and returns how to attack it.
func floor(t *testing.T) *rest.Config {
	t.Helper()
	crt, key, err := world.ServerCert("floor", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal([2][]byte{crt, key})
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env, cmd.Stderr = append(os.Environ(), floorEnv+"="+string(text)), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	var address string
	if _, err := fmt.Fscanln(out, &address); err != nil {
		t.Fatalf("the floor says nothing: %v", err)
	}
	ca, err := os.ReadFile(world.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	return &rest.Config{Host: "https://" + address, TLSClientConfig: rest.TLSClientConfig{CAData: ca}}
}
