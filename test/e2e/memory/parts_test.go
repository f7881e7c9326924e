package memory

import (
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-proxy/portico/test/proxy"
)

// TestUntrustedNodeKeepsItsOwnPods gives the proxy no more than the node has:
// other nodes' pods never come into its memory, whoever asks for them.
func TestUntrustedNodeKeepsItsOwnPods(t *testing.T) {
	home := namespace(t)
	podOn(t, home, "web", "n1", "")
	podOn(t, home, "vault", "n2", "")
	p := proxyOf(t, node)
	const own = "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1&resourceVersion=0"
	for _, user := range []string{"admin", node} {
		direct, proxied := newSide(t, world.ConfigFor(world.Token(user))), newSide(t, p.Config(world.Token(user)))
		sameAnswers(t, http.StatusOK, direct, proxied, own, strings.Replace(own, "v1/", "v1/namespaces/"+home+"/", 1))
	}
	everything := newSide(t, p.Config(world.Token("admin")))
	for range 3 {
		for _, path := range []string{"/api/v1/pods?resourceVersion=0", "/api/v1/namespaces/" + home + "/pods?resourceVersion=0"} {
			if a := everything.get(t, path); a.code != http.StatusOK || a.servedBy != "upstream" || !strings.Contains(a.body, "vault") {
				t.Errorf("%s: %d by %s", path, a.code, a.servedBy)
			}
		}
	}
	w := everything.watch(t, own+"&watch=1&timeoutSeconds=3600")
	podOn(t, home, "elsewhere", "n2", "")
	podOn(t, home, "last", "n1", "")
	for _, frame := range w.until(`"last"`) {
		if strings.Contains(frame, "elsewhere") {
			t.Errorf("the watch got %s", frame)
		}
	}
	metrics := strings.TrimSuffix(strings.TrimPrefix(p.Metrics, "http://"), "/metrics")
	out, err := exec.Command(proxy.Binary(t), "inspect", "streams", "--metrics-bind-address="+metrics).CombinedOutput()
	kept := regexp.MustCompile(`(?m)^core +v1 +pods +json +(\S+)`).FindAllSubmatch(out, -1)
	if err != nil || len(kept) != 1 || string(kept[0][1]) != "spec.nodeName=n1" {
		t.Errorf("%v\n%s", err, out)
	}
	if err := admin(t).CoreV1().Pods(home).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
}
