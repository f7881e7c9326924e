package kubectl

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// protocols are kubectl's ways to stream, and the settings that choose them.
var protocols = map[string][]string{
	"websocket": {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true", "KUBECTL_PORT_FORWARD_WEBSOCKETS=true"},
	"spdy":      {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false", "KUBECTL_PORT_FORWARD_WEBSOCKETS=false"},
}

func TestStreams(t *testing.T) {
	const node = "node-b"
	startKubelet(t, node)
	stories := map[string]func(*side){}
	for protocol, env := range protocols {
		for name, tell := range map[string]func(*side){
			"exec": execute, "stdin": executeStdin, "cp": copyFiles, "attach": attach, "port-forward": forward,
		} {
			stories[name+"-"+protocol] = func(s *side) {
				s.manned(node)
				tell(s.with(env...))
			}
		}
		stories["tty-"+protocol] = func(s *side) {
			s.running()
			executeTTY(s.with(env...))
		}
	}
	stories["logs"] = func(s *side) {
		s.manned(node)
		logs(s)
	}
	compareAll(t, stories)
}

func execute(s *side) {
	s.works("exec web -- echo hello")
	s.works("exec pod/web -c web -- sh -c", "echo out; echo err >&2")
	s.fails("terminated with exit code 3", "exec web -- sh -c", "echo out; echo err >&2; exit 3")
	s.works("exec web -- sh -c", "seq 1 150000") // 1 MB
	s.fails("", "exec web -- /nonsense")
	s.fails("container nonsense is not valid", "exec web -c nonsense -- true")
	// kubectl would hide a WebSocket that does not open: it goes on with SPDY.
	o := s.start("exec web -v=4 -- echo hello")
	o.end()
	if strings.Contains(o.errs.String(), "fallback") {
		s.t.Errorf("%s: kubectl fell back to another protocol:\n%s", s.namespace, o.errs)
	}
}

func executeStdin(s *side) {
	s.in("through the wire").works("exec -i web -- cat")
	s.in(strings.Repeat("0123456789abcde\n", 1<<17)).works("exec -i web -- sha256sum") // 2 MiB
	s.in(strings.Repeat("0123456789abcde\n", 1<<16)).works("exec -i web -- cat")       // 1 MiB each way
	s.in("exit 5").fails("terminated with exit code 5", "exec -i web -- sh")
}

func copyFiles(s *side) {
	dir, err := os.MkdirTemp("", "portico-cp-")
	if err != nil {
		s.t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	text := strings.Repeat("a file\n", 1<<16)
	if err := os.WriteFile(filepath.Join(dir, "there"), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	run := func(line string) {
		s.works(strings.ReplaceAll(line, "DIR", dir))
		last := &(*s.record)[len(*s.record)-1]
		last.Command = line
		// kubectl does not wait for what tar has to say, and so tells it or not.
		last.Stdout = strings.TrimPrefix(last.Stdout, "tar: Removing leading `/' from member names\n")
	}
	run("exec web -- mkdir DIR/pod")
	run("cp DIR/there web:DIR/pod/file")
	run("cp web:DIR/pod/file DIR/back")
	if back, err := os.ReadFile(filepath.Join(dir, "back")); string(back) != text || err != nil {
		s.t.Errorf("%s: got %d bytes back, want %d: %v", s.namespace, len(back), len(text), err)
	}
}

// forward sends bytes through a port-forward, on two connections at the same
// time; the pod echoes, hears that there is no more, and says good bye.
func forward(s *side) {
	p := s.start("port-forward pod/web :7 --address=127.0.0.1")
	p.expect("Forwarding from")
	address := strings.Fields(p.out.String())[2]
	var echoes sync.WaitGroup
	for _, letter := range []string{"a", "b"} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			s.t.Fatal(err)
		}
		text := strings.Repeat(letter, 1<<20)
		echoes.Go(func() {
			_, _ = io.WriteString(conn, text)
			_ = conn.(*net.TCPConn).CloseWrite()
		})
		echoes.Go(func() {
			defer conn.Close()
			got, err := io.ReadAll(conn)
			if err != nil || string(got) != text+"good bye from port 7" {
				s.t.Errorf("%s: sent %d bytes, got %d back: %v", s.namespace, len(text), len(got), err)
			}
		})
	}
	echoes.Wait()
	p.interrupt()
}

// attach shows what the kubelet says and ends when it is done.
func attach(s *side) {
	s.works("attach web")
	s.in("through the wire").works("attach -i web")
}

// logs follows logs that end.
func logs(s *side) {
	for _, line := range []string{
		"logs web", "logs web -f", "logs web --timestamps --tail=1 --since=1h --limit-bytes=7", "logs web --previous", "logs -l app=web --prefix",
		"logs pod/web --all-containers",
	} {
		s.works(line)
	}
	s.fails("container nonsense is not valid", "logs web -c nonsense")
}

// TestFollowersSeeTheSame follows the log of a pod directly and through the
// proxy while it is written.
func TestFollowersSeeTheSame(t *testing.T) {
	direct, proxied := newSide(t, nil), newSide(t, newProxy(t))
	direct.running()
	proxied.namespace = direct.namespace
	followers := []*process{direct.start("logs -f web"), proxied.start("logs -f web")}
	for _, f := range followers {
		f.expect("\n") // it follows
	}
	for _, line := range []string{"one", "two", "last"} {
		if err := cp.WritePodLog(line); err != nil {
			t.Fatal(err)
		}
		for _, f := range followers {
			f.expect(line) // nothing is held back
		}
	}
	for _, f := range followers {
		f.interrupt()
	}
	same(t, direct, proxied)
}
