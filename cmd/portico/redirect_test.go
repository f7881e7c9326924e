package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/portico-proxy/portico/core/redirect"
	"github.com/portico-proxy/portico/crds/balancing/v1beta1"
)

func TestPodsAreToldByTheirCgroups(t *testing.T) {
	const uid, static = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9", "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
	for name, want := range map[string]types.UID{
		"pod" + uid:    uid,
		"pod" + static: static,
		"kubepods-burstable-pod0a1b2c3d_4e5f_6071_8293_a4b5c6d7e8f9.slice": uid,
		"kubepods-pod0a1b2c3d_4e5f_6071_8293_a4b5c6d7e8f9.slice":           uid,
		"kubepods":                  "",
		"kubepods.slice":            "",
		"kubepods-besteffort.slice": "",
		"pod":                       "",
		"podman.service":            "",
		"tripod" + uid:              "",
		"system.slice":              "",
	} {
		if got, _ := podOf(name); got != want {
			t.Errorf("%s is the cgroup of pod %q, want %q", name, got, want)
		}
	}
}

func TestStaticPodsHaveTheKubeletsUID(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "mirror", Annotations: map[string]string{
		"kubernetes.io/config.hash": "static", corev1.MirrorPodAnnotationKey: "static",
	}}}
	if got := cgroupUID(pod); got != "static" {
		t.Errorf("the UID is %s", got)
	}
	delete(pod.Annotations, corev1.MirrorPodAnnotationKey)
	if got := cgroupUID(pod); got != "mirror" {
		t.Errorf("the UID of a pod that only says so is %s", got)
	}
}

func TestPodsOfBothCgroupDriversAreFound(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{
		"kubepods/burstable/pod" + numberedUID(1) + "/c", "podman.slice/sshd.service",
		"kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + strings.ReplaceAll(numberedUID(2), "-", "_") + ".slice/cri-x.scope",
	} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var pods []*corev1.Pod
	for n := range 3 {
		pods = append(pods, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: types.UID(numberedUID(n + 1))}, Status: corev1.PodStatus{Phase: corev1.PodRunning}})
	}
	p := &podCgroups{root: root}
	got := p.of(pods)
	if len(got) != 2 || got[pods[0].UID] == 0 || got[pods[1].UID] == 0 {
		t.Errorf("found %v, want pods 1 and 2", got)
	}
	// What is known is not looked for again.
	p.root = filepath.Join(root, "nowhere")
	if again := p.of(pods); !gocmp.Equal(got, again) {
		t.Errorf("found %v, then %v", got, again)
	}
	if left := p.of(pods[:1]); len(left) != 1 {
		t.Errorf("a pod that is gone is still known: %v", left)
	}
}

func numberedUID(n int) string { return fmt.Sprintf("0a1b2c3d-4e5f-6071-8293-%012d", n) }

func TestAProbeIsNoConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	target := redirect.Target{AddrPort: netip.MustParseAddrPort(l.Addr().String()), Protocol: corev1.ProtocolTCP}
	p := &prober{changed: func() {}}
	for range 5 {
		if !p.probe(t.Context(), target) {
			t.Error("a listener does not answer")
		}
	}
	// The first connection that is accepted is the one that was meant.
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "meant"); err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if accepted.RemoteAddr().String() != c.LocalAddr().String() {
		t.Errorf("accepted %s, want %s: a probe was accepted", accepted.RemoteAddr(), c.LocalAddr())
	}
	l.Close()
	if p.probe(t.Context(), target) {
		t.Error("nobody listens, and it answers")
	}
}

func TestUDPServersAreProbed(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := &prober{changed: func() {}}
	target := redirect.Target{AddrPort: netip.MustParseAddrPort(c.LocalAddr().String()), Protocol: corev1.ProtocolUDP}
	if !p.probe(t.Context(), target) {
		t.Error("a server does not answer")
	}
	c.Close()
	if p.probe(t.Context(), target) {
		t.Error("nobody listens, and it answers")
	}
}

func TestAProberSaysWhatIsNew(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	changes := 0
	p := &prober{changed: func() { changes++ }}
	target := redirect.Target{AddrPort: netip.MustParseAddrPort(l.Addr().String()), Protocol: corev1.ProtocolTCP}
	if p.Answers(target) {
		t.Error("what was never tried answers")
	}
	p.follow([]redirect.Target{target})
	for _, want := range []int{1, 1} {
		if p.probeAll(t.Context()); changes != want || !p.Answers(target) {
			t.Errorf("%d changes, want %d", changes, want)
		}
	}
	l.Close()
	if p.probeAll(t.Context()); changes != 2 || p.Answers(target) {
		t.Errorf("%d changes, want 2", changes)
	}
}

func TestNodesShareAStatus(t *testing.T) {
	policy := &v1beta1.LocalRedirectPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p", Generation: 3}}
	active := redirect.PolicyResult{Policy: policy, Accepted: true, Holds: true, Reason: v1beta1.ReasonRedirecting, Frontends: 1, Backends: 2}
	idle := redirect.PolicyResult{Policy: policy, Accepted: true, Holds: true, Reason: v1beta1.ReasonNoBackend}
	var s v1beta1.PolicyStatus
	tell(&s, idle, "n1")
	if meta.IsStatusConditionTrue(s.Conditions, v1beta1.ConditionActive) || !meta.IsStatusConditionTrue(s.Conditions, v1beta1.ConditionAccepted) {
		t.Errorf("conditions are %v", s.Conditions)
	}
	tell(&s, active, "n2")
	tell(&s, active, "n3")
	tell(&s, redirect.PolicyResult{Policy: policy, Accepted: true, Reason: v1beta1.ReasonNodeNotSelected}, "n4")
	want := v1beta1.PolicyStatus{ActiveNodes: 2, ActiveBackends: 4, Nodes: []v1beta1.NodeStatus{
		{Name: "n1", ObservedGeneration: 3, Reason: v1beta1.ReasonNoBackend},
		{Name: "n2", ObservedGeneration: 3, Frontends: 1, Backends: 2, Reason: v1beta1.ReasonRedirecting},
		{Name: "n3", ObservedGeneration: 3, Frontends: 1, Backends: 2, Reason: v1beta1.ReasonRedirecting},
	}}
	if diff := gocmp.Diff(want, s, cmpopts.IgnoreFields(v1beta1.PolicyStatus{}, "Conditions")); diff != "" {
		t.Errorf("status differs (-want +got):\n%s", diff)
	}
	if !meta.IsStatusConditionTrue(s.Conditions, v1beta1.ConditionActive) {
		t.Errorf("conditions are %v", s.Conditions)
	}
	// A node that the policy is no longer for takes its entry back.
	tell(&s, redirect.PolicyResult{Policy: policy, Accepted: true, Reason: v1beta1.ReasonNodeNotSelected}, "n2")
	if len(s.Nodes) != 2 || s.ActiveNodes != 1 {
		t.Errorf("nodes are %v", s.Nodes)
	}
	// Saying the same again changes nothing, so that it need not be written.
	before := *s.DeepCopy()
	if tell(&s, active, "n3"); !gocmp.Equal(before, s) {
		t.Errorf("status differs:\n%s", gocmp.Diff(before, s))
	}
}

func TestRedirectFlagsAreChecked(t *testing.T) {
	for name, change := range map[string]func(*redirectOptions){
		"node":  func(o *redirectOptions) { o.nodeName = "" },
		"lease": func(o *redirectOptions) { o.leaseDuration = time.Millisecond },
		"stale": func(o *redirectOptions) { o.endStale = []string{"SCTP"} },
		"probe": func(o *redirectOptions) { o.probeInterval = 0 },
	} {
		o := defaultRedirectOptions()
		o.nodeName = "n1"
		if err := o.validate(); err != nil {
			t.Errorf("the defaults are refused: %v", err)
		}
		if change(o); o.validate() == nil {
			t.Errorf("%s: not refused", name)
		}
	}
}

// TestAgentsReachTheAPIServerByRoadsOfTheirOwn finds it in each way.
func TestAgentsReachTheAPIServerByRoadsOfTheirOwn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, []byte(`{"apiVersion":"v1","kind":"Config","current-context":"c",
		"contexts":[{"name":"c","context":{"cluster":"c"}}],"clusters":[{"name":"c","cluster":{"server":"https://192.0.2.1"}}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	in := func() (*rest.Config, error) { return &rest.Config{Host: "https://192.0.2.1"}, nil }
	out := func() (*rest.Config, error) { return nil, rest.ErrNotInCluster }
	tokenless := func() (*rest.Config, error) { return nil, os.ErrNotExist }
	for name, tt := range map[string]struct {
		kubeconfig, policies string
		inCluster            func() (*rest.Config, error)
		finds                bool
		err                  error
	}{
		"kubeconfig":           {file, "", out, true, nil},
		"kubeconfig-and-files": {file, "policies", out, true, nil},
		"files-in-a-cluster":   {"", "policies", in, true, nil},
		"files-elsewhere":      {"", "policies", out, false, nil},
		"files-without-token":  {"", "policies", tokenless, false, os.ErrNotExist},
	} {
		o := defaultRedirectOptions()
		o.kubeconfig, o.policyDir = tt.kubeconfig, tt.policies
		cfg, err := o.restConfigBy(tt.inCluster)
		if !errors.Is(err, tt.err) || (cfg != nil) != tt.finds {
			t.Errorf("%s: got %v, %v", name, cfg, err)
			continue
		}
		if cfg != nil && (cfg.Host != "https://192.0.2.1" || cfg.Dial == nil || cfg.QPS >= 0 || !strings.HasPrefix(cfg.UserAgent, "portico/")) {
			t.Errorf("%s: policies may lead it to the proxy: %v", name, cfg)
		}
	}
}

func TestAgentsTellHowFullTheTableIs(t *testing.T) {
	o := defaultRedirectOptions()
	a := &agent{options: o, syncs: newSyncs()}
	a.decision.Store(&redirect.Decision{Table: redirect.Table{
		{AddrPort: netip.MustParseAddrPort("10.96.0.1:443"), Protocol: corev1.ProtocolTCP}: {},
	}})
	a.syncs.WithLabelValues("everything").Observe(0.002)
	registry := prometheus.NewRegistry()
	registry.MustRegister(newAgentMetrics(a), a.syncs)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		m := f.GetMetric()[0]
		got[f.GetName()] = m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
	}
	want := map[string]float64{
		"portico_redirect_frontends": 1, "portico_redirect_frontends_limit": float64(o.maxFrontends), "portico_redirect_sync_duration_seconds": 1,
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("metrics differ (-want +got):\n%s", diff)
	}
}
