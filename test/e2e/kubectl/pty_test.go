package kubectl

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// executeTTY runs a command on a terminal in the pod from a terminal here.
func executeTTY(s *side) {
	near, far, err := openTerminal()
	if err != nil {
		s.t.Fatal(err)
	}
	defer near.Close()
	// The size arrives a moment after the command has begun. What a command
	// prints last may be lost with its terminal, so it prints nothing then.
	const script = `stty -echo; until [ "$(stty size)" = "40 100" ]; do sleep 0.05; done; tty -s && echo on a terminal; read line; echo "got $line"; read end`
	ctx, cancel := context.WithTimeout(s.t.Context(), commandTimeout)
	defer cancel()
	cmd := s.command(ctx, "exec -it web -- sh -c", script)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = far, far, far
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	far.Close()
	var shown bytes.Buffer
	for _, turn := range []struct{ see, say string }{
		{"on a terminal", "something typed\n"}, {"got something typed", "the end\n"},
	} {
		readUntil(near, &shown, turn.see)
		if _, err := io.WriteString(near, turn.say); err != nil {
			s.t.Error(err)
		}
	}
	readUntil(near, &shown, "never shown") // a terminal without a process reads as EIO
	err = cmd.Wait()
	s.ended("exec -it", shown.String(), "", err)
}

// readUntil reads into shown until that has text in it, or to the end.
func readUntil(r io.Reader, shown *bytes.Buffer, text string) {
	buf := make([]byte, 1024)
	for !strings.Contains(shown.String(), text) {
		n, err := r.Read(buf)
		shown.Write(buf[:n])
		if err != nil {
			return
		}
	}
}

// openTerminal makes a pseudo-terminal of 40 lines of 100 columns.
func openTerminal() (near, far *os.File, err error) {
	near, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open a terminal: %w", err)
	}
	fd := int(near.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 100})
	}
	if err == nil {
		far, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		near.Close()
		return nil, nil, fmt.Errorf("open a terminal: %w", err)
	}
	return near, far, nil
}
