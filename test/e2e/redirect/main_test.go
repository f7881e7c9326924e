// Package redirect_test runs `portico redirect` on a real kernel against a real
// API server: pods and clients are processes in cgroups and in a network
// namespace of their own.
package redirect_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// roleVariable makes a process of this test binary play a client or a pod.
const roleVariable = "PORTICO_TEST_ROLE"

func TestMain(m *testing.M) {
	role := strings.Fields(os.Getenv(roleVariable))
	if len(role) == 0 {
		os.Exit(m.Run())
	}
	var err error
	switch role[0] {
	case "name":
		err = serveName(role[1], role[2])
	case "echo":
		err = echo(role[1], role[2])
	case "talk":
		err = keepAsking(role[1])
	case "ask":
		err = askOnCommand(role[1])
	case "get":
		err = getOnCommand(role[1], role[2], role[3])
	case "load":
		err = load(role[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serveName tells everybody who connects its name.
func serveName(addr, name string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		_, _ = io.WriteString(c, name)
		c.Close()
	}
}

// patience is how long a connection may take before it counts as hung.
const patience = 5 * time.Second

func ask(addr string) string {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return "error: " + err.Error()
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	name, err := io.ReadAll(c)
	if err != nil {
		return "error: " + err.Error()
	}
	return string(name)
}

// onCommand answers each line of its input by one.
func onCommand(answer func() string) error {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		fmt.Println(strings.ReplaceAll(answer(), "\n", " "))
	}
	return lines.Err()
}

func askOnCommand(addr string) error { return onCommand(func() string { return ask(addr) }) }

// getOnCommand asks an API server, whose certificate must be the cluster's, with
// a new connection each time.
func getOnCommand(url, caFile, token string) error {
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client := http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}}
	return onCommand(func() string { return get(&client, url, token) })
}

func get(client *http.Client, url, token string) string {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return "error: " + err.Error()
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := client.Do(request)
	if err != nil {
		return "error: " + err.Error()
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return "error: " + err.Error()
	}
	if response.StatusCode != http.StatusOK {
		return "error: " + response.Status
	}
	if response.Header.Get("Portico-Served-By") != "" {
		return "proxy"
	}
	return "API server"
}

// load connects a thousand times a second until its input ends, and counts who
// answered.
func load(addr string) error {
	end := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(end)
	}()
	counts := map[string]int{}
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for first := true; ; first = false {
		counts[ask(addr)]++
		if first {
			fmt.Println("started")
		}
		select {
		case <-end:
			var names []string
			for name, n := range counts {
				names = append(names, fmt.Sprintf("%s=%d", name, n))
			}
			slices.Sort(names)
			fmt.Println(strings.Join(names, " "))
			return nil
		case <-pace.C:
		}
	}
}

// echo answers each datagram with its name.
func echo(addr, name string) error {
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	buf := make([]byte, 64)
	for {
		if _, from, err := c.ReadFrom(buf); err == nil {
			_, _ = c.WriteTo([]byte(name), from)
		}
	}
}

// keepAsking connects once, as a resolver may, and writes and reads on command.
func keepAsking(addr string) error {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, 64)
	return onCommand(func() string {
		if _, err := c.Write([]byte("who")); err != nil {
			return "cannot write"
		}
		_ = c.SetReadDeadline(time.Now().Add(patience))
		n, err := c.Read(buf)
		if err != nil {
			return "error: " + err.Error()
		}
		return string(buf[:n])
	})
}
