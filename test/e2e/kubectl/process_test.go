package kubectl

import (
	"context"
	"os/exec"
	"strings"
	"sync"
	"syscall"
)

// A process is a kubectl command that goes on while the story does.
type process struct {
	side      *side
	line      string
	cmd       *exec.Cmd
	out, errs *printed
	done      chan struct{}
	err       error // of the process; after done is closed
}

// start runs a command beside the story, which must end it.
func (s *side) start(line string, args ...string) *process {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), commandTimeout)
	p := &process{side: s, line: line, cmd: s.command(ctx, line, args...), out: newPrinted(), errs: newPrinted(), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.errs
	if err := p.cmd.Start(); err != nil {
		s.t.Fatalf("start kubectl %s: %v", line, err)
	}
	s.t.Cleanup(func() { cancel(); <-p.done })
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
	return p
}

// expect waits until the command has printed something to stdout.
func (p *process) expect(text string) {
	p.side.t.Helper()
	p.await(p.out, text)
}

// expectLog waits until the command has printed something to stderr.
func (p *process) expectLog(text string) {
	p.side.t.Helper()
	p.await(p.errs, text)
}

func (p *process) await(in *printed, text string) {
	p.side.t.Helper()
	if !in.await(text, p.done) {
		p.side.t.Fatalf("%s: kubectl %s ended before it printed %q:\n%s%s", p.side.namespace, p.line, text, p.out, p.errs)
	}
}

// end waits for the end of the command and puts it on the record.
func (p *process) end() {
	p.side.t.Helper()
	<-p.done
	stderr := p.errs.String()
	if strings.Contains(p.line, "-v=") {
		stderr = "" // tells how long each request took
	}
	p.side.ended(p.line, p.out.String(), stderr, p.err)
}

// interrupt ends the command as Ctrl-C does and puts it on the record.
func (p *process) interrupt() {
	p.side.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		p.side.t.Errorf("interrupt kubectl %s: %v", p.line, err)
	}
	p.end()
}

// cut drops from the record what the command printed from text on: how much of
// that it could print before it was interrupted is chance.
func (p *process) cut(text string) {
	last := &(*p.side.record)[len(*p.side.record)-1]
	last.Stdout, _, _ = strings.Cut(last.Stdout, text)
}

// printed collects what a process prints and lets others wait for it.
type printed struct {
	mu   sync.Mutex // guards following
	text strings.Builder
	more chan struct{} // closed by the next Write
}

func newPrinted() *printed { return &printed{more: make(chan struct{})} }

func (p *printed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.more)
	p.more = make(chan struct{})
	return p.text.Write(b)
}

func (p *printed) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// await reports whether text was printed before done was closed.
func (p *printed) await(text string, done <-chan struct{}) bool {
	for {
		p.mu.Lock()
		found, more := strings.Contains(p.text.String(), text), p.more
		p.mu.Unlock()
		if found {
			return true
		}
		select {
		case <-more:
		case <-done:
			return strings.Contains(p.String(), text)
		}
	}
}
