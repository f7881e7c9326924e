package policies

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

// TestReplayShowsWhatWouldHaveBeen has an API server's own audit log replayed
// against the policy of an example.
func TestReplayShowsWhatWouldHaveBeen(t *testing.T) {
	dir := t.TempDir()
	policy, audit := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "audit.log")
	if err := os.WriteFile(policy, []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	world := controlplane.New(t, controlplane.Options{
		Users: []controlplane.User{{Name: "joe", Groups: []string{"system:masters"}}},
		Flags: map[controlplane.Part][]string{
			controlplane.APIServer: {"--audit-policy-file=" + policy, "--audit-log-path=" + audit, "--audit-log-mode=blocking-strict"},
		},
	})
	client := kubernetes.NewForConfigOrDie(world.ConfigFor(world.Token("joe")))
	const lists = 400 // more than six a minute, however long they take
	for range lists {
		if _, err := client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, proxy.Binary(t), "policy", "replay", "examples/quorum-lists/policy.yaml", audit)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !regexp.MustCompile(`(?m)^3\d\d +rejected +joe +limit quorum-list of policy quorum-list$`).MatchString(out) {
		t.Errorf("the loop of %d lists is not there:\n%s", lists, out)
	}
	if !regexp.MustCompile(`(?m)^\d+ +admitted`).MatchString(out) {
		t.Errorf("nothing else is there:\n%s", out)
	}
}
