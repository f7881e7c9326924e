package kubectl

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/portico-proxy/portico/test/proxy"
)

// commandTimeout bounds a command that would hang.
const commandTimeout = 90 * time.Second

// A side is one of the two ways to the API server, with a namespace of its own
// and a record of what was run there. Copies share the record.
type side struct {
	t         *testing.T
	proxy     *proxy.Proxy // nil for the direct way
	user      string
	namespace string
	prefix    string // before it in the cluster
	stdin     string
	env       []string
	record    *[]outcome
}

// An outcome is what became of one command, without what differs between any
// two runs.
type outcome struct {
	Command, Stdout, Stderr string
	Exit                    int
}

// compare tells a story on both sides, each in an empty namespace, and fails
// the test where the outcomes differ.
func compare(t *testing.T, p *proxy.Proxy, tell func(*side)) {
	t.Helper()
	direct, proxied := newSide(t, nil), newSide(t, p)
	tell(direct)
	tell(proxied)
	same(t, direct, proxied)
}

// compareAll runs a comparison for each story, under its name.
func compareAll(t *testing.T, stories map[string]func(*side)) {
	t.Helper()
	p := newProxy(t)
	for name, tell := range stories {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			compare(t, p, tell)
		})
	}
}

// same fails the test where the outcomes of the two sides differ.
func same(t *testing.T, direct, proxied *side) {
	t.Helper()
	if testing.Verbose() {
		for _, o := range *direct.record {
			t.Logf("$ kubectl %s\n%s%s(exit code %d)", o.Command, o.Stdout, o.Stderr, o.Exit)
		}
	}
	if diff := cmp.Diff(*direct.record, *proxied.record); diff != "" {
		t.Errorf("kubectl's outcomes (-direct +proxied):\n%s", diff)
	}
}

// namespaces counts them, so that tests may run more than once.
var namespaces atomic.Int32

func newSide(t *testing.T, p *proxy.Proxy) *side {
	t.Helper()
	return newSideOf(t, p, "")
}

// newSideOf makes a side whose namespace begins with a prefix in the cluster.
func newSideOf(t *testing.T, p *proxy.Proxy, prefix string) *side {
	t.Helper()
	way := "d"
	if p != nil {
		way = "p"
	}
	// Both are equally long, so that tables have equal columns.
	s := &side{t: t, proxy: p, user: "admin", prefix: prefix, record: new([]outcome)}
	s.namespace = fmt.Sprintf("shop-%s-%03d", way, namespaces.Add(1))
	if err := cp.AddNamespace(t.Context(), prefix+s.namespace); err != nil {
		t.Fatal(err)
	}
	return s
}

// direct is the same side, but straight to the API server and off the record:
// for what must be so before the story, or happens meanwhile.
func (s side) direct() *side {
	s.proxy, s.record = nil, new([]outcome)
	s.namespace, s.prefix = s.prefix+s.namespace, ""
	return &s
}

// as is the same side for another user.
func (s side) as(user string) *side {
	s.user = user
	return &s
}

// in is the same side with something on stdin.
func (s side) in(stdin string) *side {
	s.stdin = stdin
	return &s
}

// with is the same side with further environment variables.
func (s side) with(env ...string) *side {
	s.env = append(slices.Clip(s.env), env...)
	return &s
}

func (s *side) server() string {
	if s.proxy != nil {
		return s.proxy.URL
	}
	return cp.URL()
}

func (s *side) kubeconfig() string {
	s.t.Helper()
	cred := cp.Token(s.user)
	if s.proxy != nil {
		return s.proxy.Kubeconfig(cred)
	}
	path := filepath.Join(s.t.TempDir(), "direct.kubeconfig")
	if err := cp.Kubeconfig(cred).WriteFile(path); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// command is a kubectl command: the words of line, then args as they are.
func (s *side) command(ctx context.Context, line string, args ...string) *exec.Cmd {
	s.t.Helper()
	cmd := cp.Kubectl(ctx, s.kubeconfig(), append(append(strings.Fields(line), "--namespace="+s.namespace), args...)...)
	if before, after, found := strings.Cut(line, " -- "); found {
		words := append(strings.Fields(before), "--namespace="+s.namespace, "--")
		cmd = cp.Kubectl(ctx, s.kubeconfig(), append(append(words, strings.Fields(after)...), args...)...)
	}
	cmd.Env = append(cmd.Env, s.env...)
	if s.stdin != "" {
		cmd.Stdin = strings.NewReader(s.stdin)
	}
	return cmd
}

// works runs a command that must succeed and returns what it printed.
func (s *side) works(line string, args ...string) string {
	s.t.Helper()
	o, stdout := s.run(line, args...)
	if o.Exit != 0 {
		s.t.Errorf("%s: kubectl %s: exit code %d\n%s%s", s.namespace, o.Command, o.Exit, o.Stdout, o.Stderr)
	}
	return stdout
}

// fails runs a command that must fail and say why.
func (s *side) fails(why, line string, args ...string) {
	s.t.Helper()
	o, _ := s.run(line, args...)
	if o.Exit == 0 || !strings.Contains(o.Stderr+o.Stdout, why) {
		s.t.Errorf("%s: kubectl %s: exit code %d, want a failure that says %q\n%s%s",
			s.namespace, o.Command, o.Exit, why, o.Stdout, o.Stderr)
	}
}

func (s *side) run(line string, args ...string) (o outcome, stdout string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), commandTimeout)
	defer cancel()
	cmd := s.command(ctx, line, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if ctx.Err() != nil {
		s.t.Errorf("%s: kubectl %s: no end after %v", s.namespace, line, commandTimeout)
	}
	return s.ended(strings.Join(append([]string{line}, args...), " "), out.String(), errs.String(), err), out.String()
}

// ended puts a command's outcome on the record.
func (s *side) ended(command, stdout, stderr string, err error) outcome {
	s.t.Helper()
	o := outcome{Command: s.normal(command), Stdout: short(s.normal(stdout)), Stderr: s.normal(stderr)}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		o.Exit = exit.ExitCode()
	} else if err != nil {
		s.t.Fatalf("%s: kubectl %s: %v", s.namespace, command, err)
	}
	*s.record = append(*s.record, o)
	return o
}

// short says of a long text only which it is.
func short(text string) string {
	if len(text) <= long {
		return text
	}
	return fmt.Sprintf("%d bytes, SHA-256 %x", len(text), sha256.Sum256([]byte(text)))
}
