package controlplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// stopGrace is how long a part has from SIGTERM to its end.
const stopGrace = 15 * time.Second

var (
	// ErrNoPart says that this control plane has no such part.
	ErrNoPart = errors.New("no such part")
	// ErrNotRunning says that the part has ended or was killed.
	ErrNotRunning = errors.New("part is not running")
)

// A process runs one part: the same command line each time it is started.
type process struct {
	part    Part
	path    string
	args    []string
	env     []string
	log     string // stdout and stderr of all its runs
	ready   func(context.Context) error
	timeout time.Duration
	spawn   *spawner

	mu  sync.Mutex // guards run
	run *run
}

// A run is one life of a process.
type run struct {
	cmd    *exec.Cmd
	exited chan struct{}
	err    error // valid once exited is closed
}

// start runs the part and waits until it is ready to serve.
func (p *process) start(ctx context.Context) error {
	r, err := p.begin()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	if err := r.await(ctx, p.ready); err != nil {
		return fmt.Errorf("start %s: %w\n%s", p.part, err, p.tail(30))
	}
	return nil
}

func (p *process) begin() (*run, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run != nil && !p.run.gone() {
		return nil, fmt.Errorf("start %s: already running", p.part)
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", p.part, err)
	}
	defer log.Close()
	cmd := exec.Command(p.path, p.args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), p.env...)
	cmd.SysProcAttr = childAttributes()
	if err := p.spawn.start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.part, err)
	}
	p.run = &run{cmd: cmd, exited: make(chan struct{})}
	go p.run.reap()
	return p.run, nil
}

// current returns the run that is alive.
func (p *process) current() (*run, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run == nil || p.run.gone() {
		return nil, fmt.Errorf("%s: %w", p.part, ErrNotRunning)
	}
	return p.run, nil
}

// terminate asks the part to end, waits, and kills it after a bound. It is no
// error if the part is not running.
func (p *process) terminate() {
	r, err := p.current()
	if err != nil {
		return
	}
	_ = r.signal(syscall.SIGTERM)
	_ = r.signal(syscall.SIGCONT) // it may be frozen
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	select {
	case <-r.exited:
	case <-timer.C:
		r.kill()
	}
}

// kill ends the part at once if it is running.
func (p *process) kill() {
	if r, err := p.current(); err == nil {
		r.kill()
	}
}

// thaw lets the part go on if it is frozen.
func (p *process) thaw() {
	if r, err := p.current(); err == nil {
		_ = r.signal(syscall.SIGCONT)
	}
}

// tail returns the end of the part's log.
func (p *process) tail(lines int) string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return lastLines(text, lines)
}

func (r *run) reap() {
	awaitExit(r.cmd.Process.Pid)
	// What the part started (kwok runs exec's commands) is in its group.
	_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
	r.err = r.cmd.Wait()
	close(r.exited)
}

func (r *run) gone() bool {
	select {
	case <-r.exited:
		return true
	default:
		return false
	}
}

func (r *run) signal(sig syscall.Signal) error { return r.cmd.Process.Signal(sig) }

// kill ends the process at once and waits until it is gone.
func (r *run) kill() {
	_ = r.signal(syscall.SIGKILL)
	<-r.exited
}

// await polls ready until it returns nil, the process ends or ctx does.
func (r *run) await(ctx context.Context, ready func(context.Context) error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		last := ready(ctx)
		if last == nil {
			return nil
		}
		select {
		case <-r.exited:
			return fmt.Errorf("ended before it was ready: %w", cmpErr(r.err, ErrNotRunning))
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w (%w)", last, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

func cmpErr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}
