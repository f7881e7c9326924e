// Package telemetry follows one request through the proxy's spans, metrics and
// log into the API server's audit log.
package telemetry

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/client-go/rest"

	"github.com/portico-proxy/portico/core/telemetry/telemetrytest"
	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

const auditPolicy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n"

func TestOneRequestIsJoinedAcrossSpansAndAuditLog(t *testing.T) {
	dir := t.TempDir()
	policy, audit := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "audit.log")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	cp := controlplane.New(t, controlplane.Options{Flags: map[controlplane.Part][]string{
		controlplane.APIServer: {"--audit-policy-file=" + policy, "--audit-log-path=" + audit, "--audit-log-mode=blocking-strict"},
	}})
	collector := telemetrytest.Start(t)
	p := proxy.New(t, proxy.Options{
		Kubeconfig: cp.KubeconfigPath(), Flags: []string{"--node-name=node-0", "--v=3"},
		Env: []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + collector.Address, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_BSP_SCHEDULE_DELAY=1"},
	})
	const trace = "0af7651916cd43dd8448eb211c80319c"
	id := ask(t, p.Config(cp.Token("admin")), p.URL+"/api/v1/namespaces/default?pretty=secret", "00-"+trace+"-b7ad6b7169203331-01")
	p.Stop() // flushes

	server := collector.Span(t, "SERVER", "GET /api/v1/namespaces/{:namespace}/namespaces/{:name}")
	want := map[string]string{
		"audit-id": id, "http.request.method": "GET", "url.path": "/api/v1/namespaces/default", "http.response.status_code": "200",
		"portico.served_by": "upstream", "k8s.api.verb": "get", "k8s.api.resource": "namespaces", "k8s.api.namespace": "default",
	}
	if diff := cmp.Diff(want, server.Attributes, cmpopts.IgnoreMapEntries(func(k, _ string) bool { return want[k] == "" })); diff != "" {
		t.Error(diff)
	}
	if len(server.Links) != 1 || !strings.Contains(server.Links[0], trace) {
		t.Errorf("the caller's trace is not linked: %v", server.Links)
	}
	var children []string
	for _, s := range collector.Spans() {
		if s.ParentID == server.SpanID {
			children = append(children, s.Kind+" "+s.Name)
		}
	}
	if diff := cmp.Diff([]string{"INTERNAL filter throttle", "INTERNAL filter authn", "INTERNAL filter talkers", "INTERNAL filter authz", "INTERNAL filter cache", "CLIENT " + server.Name}, children); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(p.Log(), `auditID="`+id+`"`) || strings.Contains(p.Log(), "secret") {
		t.Error("the log does not name the request, or names too much")
	}
	if caller := auditedIP(t, audit, id); caller != "127.0.0.1" {
		t.Errorf("the API server audited the caller as %q", caller)
	}
}

// ask sends one request with a traceparent and returns the answer's Audit-ID.
func ask(t *testing.T, cfg *rest.Config, url, traceparent string) string {
	t.Helper()
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Traceparent", traceparent)
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("got %d, %v", res.StatusCode, err)
	}
	return res.Header.Get("Audit-Id")
}

// auditedIP waits for the audit event of a request and returns where the API
// server thinks it came from.
func auditedIP(t *testing.T, file, id string) string {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if ip, ok := findIP(t, file, id); ok {
			return ip
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("no audit event %s", id)
		case <-tick.C:
		}
	}
}

func findIP(t *testing.T, file, id string) (string, bool) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var event struct {
			AuditID   string   `json:"auditID"`
			SourceIPs []string `json:"sourceIPs"`
		}
		if json.Unmarshal(lines.Bytes(), &event) == nil && event.AuditID == id && len(event.SourceIPs) > 0 {
			return event.SourceIPs[0], true
		}
	}
	return "", false
}
