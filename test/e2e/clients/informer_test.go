package clients

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// TestInformersAgreeWithTheAPIServer follows a namespace with each kind of
// informer, directly and through the proxy, while its objects change. In the
// end all must have what the API server has, and must not have logged errors on
// one way that they have not on the other.
func TestInformersAgreeWithTheAPIServer(t *testing.T) {
	ns := addNamespace(t)
	client := clientset(t, world.Config())
	churn := startChurn(t, client, ns)
	lists := map[string][]string{
		"watch-list":      {"KUBE_FEATURE_WatchListClient=true", "KUBE_WATCHLIST_INCONSISTENCY_DETECTOR=true"},
		"list-then-watch": {"KUBE_FEATURE_WatchListClient=false"},
	}
	flags := ways(t)
	road, memory := newProxy(t, flags["road"]...), newProxy(t, flags["memory"]...)
	configs := map[string]*rest.Config{"direct": straight(), "proxied": through(road), "remembered": through(memory)}
	children := map[string]*informerProcess{}
	for list, env := range lists {
		for way, config := range configs {
			children[list+" "+way] = startInformers(t, config, ns, env)
		}
	}
	for _, child := range children {
		child.awaitSynced(t)
	}
	churn.more(500)
	churn.end(t)

	expectMemory(t, road, "road")
	expectMemory(t, memory, "memory")

	all, half := listed(t, client, ns, ""), listed(t, client, ns, "half")
	want := map[string]map[string]string{"typed": all, "half": half, "dynamic": all, "metadata": all}
	for name, child := range children {
		report := child.end(t)
		if diff := cmp.Diff(want, report.Stores); diff != "" {
			t.Errorf("%s: stores differ from a list (-list +store):\n%s", name, diff)
		}
		if streams := strings.HasPrefix(name, "watch-list"); report.Streamed != streams {
			t.Errorf("%s: lists were watches: %v, want %v", name, report.Streamed, streams)
		}
	}
	for list := range lists {
		known := errorsIn(children[list+" direct"].stderr.String())
		for _, way := range []string{"proxied", "remembered"} {
			if diff := cmp.Diff(known, errorsIn(children[list+" "+way].stderr.String())); diff != "" {
				t.Errorf("%s %s: logged errors differ (-direct +%s):\n%s", list, way, way, diff)
			}
		}
	}
}

// listed returns the resourceVersions of ConfigMaps by name.
func listed(t *testing.T, client kubernetes.Interface, ns, selector string) map[string]string {
	t.Helper()
	list, err := client.CoreV1().ConfigMaps(ns).List(t.Context(), metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]string{}
	for _, item := range list.Items {
		byName[item.Name] = item.ResourceVersion
	}
	return byName
}

// informerProcess is this test binary, run as informerMain.
type informerProcess struct {
	cmd    *exec.Cmd
	stdout *bufio.Reader
	stderr bytes.Buffer // to be read after end
}

func startInformers(t *testing.T, config *rest.Config, ns string, env []string) *informerProcess {
	t.Helper()
	job, err := json.Marshal(informerJob{Host: config.Host, Token: config.BearerToken, CA: config.CAData, Namespace: ns, Last: last})
	if err != nil {
		t.Fatal(err)
	}
	p := &informerProcess{cmd: exec.CommandContext(t.Context(), os.Args[0])}
	p.cmd.Env = append(append(os.Environ(), env...), informerEnv+"="+string(job))
	p.cmd.Stderr = &p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdout = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Hanging for ever is not among the outcomes.
	bound := time.AfterFunc(2*time.Minute, func() { _ = p.cmd.Process.Kill() })
	t.Cleanup(func() { bound.Stop(); _ = p.cmd.Process.Kill() })
	return p
}

func (p *informerProcess) awaitSynced(t *testing.T) {
	t.Helper()
	if line, err := p.stdout.ReadString('\n'); line != synced+"\n" {
		_ = p.cmd.Wait()
		t.Fatalf("informers printed %q, %v\n%s", line, err, &p.stderr)
	}
}

func (p *informerProcess) end(t *testing.T) *informerReport {
	t.Helper()
	out, err := io.ReadAll(p.stdout)
	if err != nil {
		t.Error(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("informers: %v\n%s", err, &p.stderr)
	}
	report := &informerReport{}
	if err := json.Unmarshal(out, report); err != nil {
		t.Errorf("informers printed %q: %v", out, err)
	}
	return report
}

// klogError is the head of an error or a warning in klog's text format.
var klogError = regexp.MustCompile(`(?m)^[EWF]\d{4} \S+ +\d+ ([^:\]]+:\d+)\] ("(?:[^"\\]|\\.)*")?`)

// errorsIn returns the places in the source and the messages of the errors and
// warnings of a log, each once.
func errorsIn(log string) []string {
	var kinds []string
	for _, m := range klogError.FindAllStringSubmatch(log, -1) {
		kinds = append(kinds, m[1]+" "+m[2])
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}
