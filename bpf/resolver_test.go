//go:build linux

package bpf

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What resolvers ask in their own ways: c-ares through Node.js, Java through
// sockets of both families, and musl without connecting.
const (
	askWithCares = `const r = new (require("dns").Resolver)(); r.setServers(["10.96.0.10"]);
r.resolve4("portico.test", (err, found) => console.log(err ? err.code : found[0]));`

	askWithJava = `import java.util.Hashtable;
import javax.naming.directory.InitialDirContext;
public class Ask {
	public static void main(String[] args) throws Exception {
		var env = new Hashtable<String, String>();
		env.put("java.naming.factory.initial", "com.sun.jndi.dns.DnsContextFactory");
		env.put("java.naming.provider.url", "dns://10.96.0.10");
		System.out.println(new InitialDirContext(env).getAttributes("portico.test", new String[] {"A"}).get("A").get());
	}
}`
)

const askWithMusl = `#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
int main(void)
{
	struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
	char text[INET_ADDRSTRLEN];
	int err = getaddrinfo("portico.test", "80", &hints, &found);

	if (err)
		return puts(gai_strerror(err)), 1;
	puts(inet_ntop(AF_INET, &((struct sockaddr_in *)found->ai_addr)->sin_addr, text, sizeof(text)));
}
`

// Real resolvers take the answers of a node-local DNS server for those of the
// server that they ask.
func TestResolversTakeAnswers(t *testing.T) {
	n := newNetns(t)
	steer(t, Table{front("10.96.0.10:53", UDP): service("dns", n.nameServer(t))})
	dir := t.TempDir()
	for name, text := range map[string]string{"Ask.java": askWithJava, "ask.c": askWithMusl, "resolv.conf": "nameserver 10.96.0.10\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, command := range map[string][]string{
		"c-ares": {"node", "-e", askWithCares},
		"Java":   {"java", filepath.Join(dir, "Ask.java")},
		// musl finds its server in a file, which is another one for it alone.
		"musl": {"unshare", "--mount", "sh", "-ec", "mount --bind resolv.conf /etc/resolv.conf; musl-gcc -static -o ask ask.c; exec ./ask"},
	} {
		t.Run(name, func(t *testing.T) {
			needs := command[0]
			if name == "musl" {
				needs = "musl-gcc"
			}
			if _, err := exec.LookPath(needs); err != nil {
				t.Skip("needs the resolver: ", err)
			}
			if _, err := os.Stat("/etc/resolv.conf"); err != nil {
				t.Skip("needs a file to mount over: ", err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			var out []byte
			var err error
			cmd := exec.CommandContext(ctx, command[0], command[1:]...)
			cmd.Dir = dir
			n.do(func() { out, err = cmd.CombinedOutput() })
			if got := strings.TrimSpace(string(out)); err != nil || got != "192.0.2.53" {
				t.Errorf("it found %q, error %v; want 192.0.2.53", got, err)
			}
		})
	}
}

// nameServer knows one address for whatever it is asked.
func (n *netns) nameServer(tb testing.TB) netip.AddrPort {
	tb.Helper()
	var c *net.UDPConn
	var err error
	n.do(func() { c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 5)}) })
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	go func() {
		buffer := make([]byte, 1500)
		for {
			size, from, err := c.ReadFromUDPAddrPort(buffer)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if answer := answerTo(buffer[:size]); err == nil && answer != nil {
				_, _ = c.WriteToUDPAddrPort(answer, from) // who asks asks again
			}
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// answerTo answers a question of DNS, which has one name in it, by one address.
func answerTo(question []byte) []byte {
	const header = 12
	end := header
	for end < len(question) && question[end] != 0 {
		end += int(question[end]) + 1
	}
	end += 5 // the root, type and class
	if end > len(question) {
		return nil
	}
	answer := append([]byte{}, question[:end]...)
	answer[2], answer[3] = 0x84, 0              // an answer, by who should know
	copy(answer[4:header], []byte{0, 1, 0, 1})  // one question, one answer
	clear(answer[8:header])                     // and nothing else
	answer = append(answer, 0xc0, header, 0, 1) // the same name; A
	answer = append(answer, 0, 1, 0, 0, 0, 60)  // IN, for a minute
	return append(answer, 0, 4, 192, 0, 2, 53)
}
