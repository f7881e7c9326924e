package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

// A proxy that took itself for another would wait for its own lease for ever.
func TestReplicasKnowEachOtherByOneAddress(t *testing.T) {
	for name, tt := range map[string]struct {
		ip, peers string
		own       string
		want      []string
		wrong     string // what the error names
	}{
		"ipv4":        {"10.0.0.1", "10.0.0.1:6444,10.0.0.2:7000", "10.0.0.1:6444", []string{"10.0.0.1:6444", "10.0.0.2:7000"}, ""},
		"ipv6":        {"fd00::1", "[fd00:0:0::1]:6444,[FD00::2]:6444", "[fd00::1]:6444", []string{"[fd00::1]:6444", "[fd00::2]:6444"}, ""},
		"ipv6-own":    {"FD00:0:0:0::1", "[fd00::1]:6444", "[fd00::1]:6444", []string{"[fd00::1]:6444"}, ""},
		"mapped":      {"::ffff:10.0.0.1", "[::ffff:a00:2]:06444", "10.0.0.1:6444", []string{"10.0.0.2:6444"}, ""},
		"name":        {"10.0.0.1", "10.0.0.2:6444,portico-0.example.org:6444", "", nil, "--peers=portico-0.example.org:6444"},
		"no-port":     {"10.0.0.1", "10.0.0.2", "", nil, "--peers=10.0.0.2"},
		"named-port":  {"10.0.0.1", "10.0.0.2:https", "", nil, "--peers=10.0.0.2:https"},
		"any-port":    {"10.0.0.1", "10.0.0.2:0", "", nil, "--peers=10.0.0.2:0"},
		"zone":        {"10.0.0.1", "[fe80::1%eth0]:6444", "", nil, "--peers=[fe80::1%eth0]:6444"},
		"no-brackets": {"fd00::1", "fd00::2:6444", "", nil, "--peers=fd00::2:6444"},
	} {
		t.Run(name, func(t *testing.T) {
			o, cmd := defaultProxyOptions(), &cobra.Command{}
			o.addFlags(cmd)
			if err := cmd.ParseFlags([]string{"--peers=" + tt.peers, "--peer-advertise-ip=" + tt.ip, "--peer-ca-file=a", "--peer-cert-file=b", "--peer-key-file=c"}); err != nil {
				t.Fatal(err)
			}
			err := o.replicas.check(true)
			if tt.wrong != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tt.wrong+" ") || !strings.Contains(err.Error(), "10.0.0.2:6444") {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if own := o.replicas.own(); own != tt.own {
				t.Errorf("it is %s", own)
			}
			if diff := cmp.Diff(tt.want, o.replicas.peers); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReplicasNeedAPort(t *testing.T) {
	for _, port := range []int{0, -1, 65536} {
		o := replicaOptions{service: "kube-system/portico", advertiseIP: "10.0.0.1", advertisePort: port, caFile: "a", certFile: "b", keyFile: "c"}
		if err := o.check(true); err == nil || !strings.Contains(err.Error(), "--peer-advertise-port") {
			t.Errorf("%d: got %v", port, err)
		}
	}
}
