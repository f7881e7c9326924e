package controlplane

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Pid returns the process id of a part that is running.
func (c *ControlPlane) Pid(part Part) (int, error) {
	r, err := c.running(part)
	if err != nil {
		return 0, err
	}
	return r.cmd.Process.Pid, nil
}

// Kill ends a part with SIGKILL and returns when it is gone. Its port stays
// reserved, so connections to it are refused until Restart.
func (c *ControlPlane) Kill(part Part) error {
	r, err := c.running(part)
	if err != nil {
		return err
	}
	r.kill()
	return nil
}

// Terminate ends a part with SIGTERM, as a rolling update would, and returns
// when it is gone. A part that does not end in 15 s is killed.
func (c *ControlPlane) Terminate(part Part) error {
	p, err := c.process(part)
	if err != nil {
		return err
	}
	p.terminate()
	return nil
}

// Signal sends a signal to a part and does not wait for what it does.
func (c *ControlPlane) Signal(part Part, sig syscall.Signal) error {
	r, err := c.running(part)
	if err != nil {
		return err
	}
	if err := r.signal(sig); err != nil {
		return fmt.Errorf("send %v to %s: %w", sig, part, err)
	}
	return nil
}

// Restart starts a part again with the port, data and flags it had, and
// returns when it is ready. A part that is still running is terminated first;
// etcd takes five seconds to let its clients go, so Kill it if that does not
// matter. After a restart of etcd, Ready tells when an API server has found it.
func (c *ControlPlane) Restart(ctx context.Context, part Part) error {
	p, err := c.process(part)
	if err != nil {
		return err
	}
	p.terminate()
	return p.start(ctx)
}

// Freeze stops a part with SIGSTOP and returns when it stands still: its
// connections stay open, new ones are still accepted by the kernel, and nothing
// answers.
func (c *ControlPlane) Freeze(part Part) error {
	if err := c.Signal(part, syscall.SIGSTOP); err != nil {
		return err
	}
	pid, err := c.Pid(part)
	if err != nil {
		return err
	}
	awaitStopped(pid)
	return nil
}

// Thaw lets a frozen part go on.
func (c *ControlPlane) Thaw(part Part) error { return c.Signal(part, syscall.SIGCONT) }

// Ready returns when a part is ready to serve.
func (c *ControlPlane) Ready(ctx context.Context, part Part) error {
	p, err := c.process(part)
	if err != nil {
		return err
	}
	r, err := p.current()
	if err != nil {
		return err
	}
	return r.await(ctx, p.ready)
}

// Log returns what a part has written to stdout and stderr so far.
func (c *ControlPlane) Log(part Part) (string, error) {
	p, err := c.process(part)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(p.log)
	return string(text), err
}

// Stop ends all parts and waits until they are gone. With a directory that is
// kept, they end in order: those that others need last. A temporary directory
// is removed, so nothing in it is worth the seconds that takes, and its parts
// are killed. Stop may be called more than once.
func (c *ControlPlane) Stop() {
	c.stop.Do(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.opts.Dir != "" {
			c.each(anyPart, (*process).thaw)
			c.each(func(p Part) bool { return p != Etcd && !isAPIServer(p) }, (*process).terminate)
			c.each(isAPIServer, (*process).terminate)
			c.each(anyPart, (*process).terminate)
		}
		c.each(anyPart, (*process).kill)
		c.spawn.close()
		for _, p := range c.ports {
			p.close()
		}
		if c.opts.Dir == "" && c.dir != "" {
			_ = os.RemoveAll(c.dir)
		}
	})
}

// each does something to some parts, all at once. The caller holds c.mu.
func (c *ControlPlane) each(these func(Part) bool, do func(*process)) {
	var all sync.WaitGroup
	for part, p := range c.parts {
		if these(part) {
			all.Go(func() { do(p) })
		}
	}
	all.Wait()
}

func anyPart(Part) bool { return true }

func isAPIServer(p Part) bool { return strings.HasPrefix(string(p), string(APIServer)) }

func (c *ControlPlane) running(part Part) (*run, error) {
	p, err := c.process(part)
	if err != nil {
		return nil, err
	}
	return p.current()
}

func (c *ControlPlane) process(part Part) (*process, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.parts[part]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%s: %w", part, ErrNoPart)
}

// own takes charge of a process, so that Stop ends it.
func (c *ControlPlane) own(p *process) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.parts[p.part] != nil {
		return fmt.Errorf("start %s: there is one already; use Restart", p.part)
	}
	c.parts[p.part] = p
	return nil
}

// reserve takes a port that Stop gives back.
func (c *ControlPlane) reserve() (*port, error) {
	p, err := reservePort()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ports = append(c.ports, p)
	return p, nil
}

// LogTails returns the last lines of the logs of all parts, for a test to print
// when it failed. New sees to that by itself.
func (c *ControlPlane) LogTails(lines int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for _, part := range slices.Sorted(maps.Keys(c.parts)) {
		fmt.Fprintf(&b, "\n--- end of the log of %s\n%s\n", part, c.parts[part].tail(lines))
	}
	return b.String()
}
