package filters

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/portico-proxy/portico/test/proxy"
)

// asJane asks a proxy, and lets the guest of http_handler do what is wanted.
func asJane(t *testing.T, p *proxy.Proxy, wanted, method, path, body string) *http.Response {
	t.Helper()
	c := p.Config(world.Token("jane"))
	client, err := rest.HTTPClientFor(c)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, c.Host+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Case", wanted)
	r.Header.Set("Content-Type", "application/json")
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

func read(t *testing.T, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestHTTPWasmFilterRuns(t *testing.T) {
	p := newProxy(t)
	guest := encoded(t, fromC(t, "../../../plugins/tck/guests/handler/guest.c"))
	apply(t, ofGuest("handler", "{inline: "+guest+"}")+"  abi: HTTPWasmV1\n"+
		strings.Replace(bound("handler"), "[create]", "[create, get, watch]", 1))
	inForce(t, "wasmfilter/handler", "filterbinding/handler")
	const maps = "/api/v1/namespaces/default/configmaps"
	t.Cleanup(func() { must(t, world.KubeconfigPath(), "", "delete", "configmap", "wall") })
	if res := asJane(t, p, "dye", "POST", maps, `{"metadata":{"name":"wall"},"data":{"color":"red"}}`); res.StatusCode != http.StatusCreated {
		t.Fatalf("%s: %s", res.Status, read(t, res))
	}
	stored := func() string {
		return must(t, world.KubeconfigPath(), "", "get", "configmap", "wall", "-o", "jsonpath={.data.color}")
	}
	if got := stored(); got != "blue" {
		t.Errorf("stored: %s", got)
	}
	must(t, world.KubeconfigPath(), "", "patch", "configmap", "wall", "-p", `{"data":{"color":"red"}}`)
	painted := asJane(t, p, "paint", "GET", maps+"/wall", "")
	if got := read(t, painted); painted.StatusCode != 200 || !strings.Contains(got, `"blue"`) || painted.Header.Get("X-Painted") != "yes" || stored() != "red" {
		t.Errorf("rewritten: %s, %s", painted.Status, got)
	}
	var status struct{ Kind, Message, Reason string }
	refused := asJane(t, p, "hide", "GET", maps+"/wall", "")
	if err := json.Unmarshal([]byte(read(t, refused)), &status); err != nil || refused.StatusCode != 404 || fmt.Sprint(status) != "{Status nothing to see (filter handler) NotFound}" {
		t.Errorf("refused: %s, %+v, %v", refused.Status, status, err)
	}
	watch := asJane(t, p, "paint", "GET", maps+"?watch=true&fieldSelector=metadata.name%3Dwall", "")
	if line, err := bufio.NewReader(watch.Body).ReadString('\n'); err != nil || !strings.Contains(line, `"red"`) {
		t.Errorf("watched: %v, %s", err, line)
	}
}
