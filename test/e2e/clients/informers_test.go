package clients

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/portico-proxy/portico/test/proxy"
)

// Environment of the informer that runs as a program of its own: client-go
// reads its feature gates once.
const (
	informerEnv  = "PORTICO_TEST_INFORMER" // kubeconfig
	namespaceEnv = "PORTICO_TEST_NAMESPACE"
)

// TestInformer is that program: it follows PodTemplates, which no controller
// touches, until it has seen the one called last, and prints what it has.
func TestInformer(t *testing.T) {
	kubeconfig := os.Getenv(informerEnv)
	if kubeconfig == "" {
		t.Skip("run by TestInformersEndEqualToTheAPIServer")
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	factory := informers.NewSharedInformerFactoryWithOptions(kubernetes.NewForConfigOrDie(cfg), 0, informers.WithNamespace(os.Getenv(namespaceEnv)))
	lister := factory.Core().V1().PodTemplates().Lister().PodTemplates(os.Getenv(namespaceEnv))
	factory.Start(t.Context().Done())
	factory.WaitForCacheSync(t.Context().Done())
	fmt.Println("synced")
	for {
		if _, err := lister.Get("last"); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond) //nolint:forbidigo // the lister does not say when it has changed
	}
	for _, o := range factory.Core().V1().PodTemplates().Informer().GetStore().List() {
		fmt.Println(state(o.(*corev1.PodTemplate)))
	}
}

func state(p *corev1.PodTemplate) string {
	return "has " + p.Name + " " + p.ResourceVersion + " " + p.Template.Annotations["n"]
}

func TestInformersEndEqualToTheAPIServer(t *testing.T) {
	for _, memory := range []string{"--watch-cache=false", "--watch-cache"} {
		p := proxy.New(t, proxy.Options{Kubeconfig: world.KubeconfigPath(), Flags: []string{memory}})
		for name, gate := range map[string]string{"watchlist": "true", "legacy": "false"} {
			t.Run(name+memory, func(t *testing.T) {
				namespace := "informer-" + name + memory[len(memory)-5:]
				if err := world.AddNamespace(t.Context(), namespace); err != nil {
					t.Fatal(err)
				}
				stop := churn(t, namespace)
				cmd := exec.Command(os.Args[0], "-test.run=^TestInformer$", "-test.v")
				cmd.Env = append(os.Environ(), informerEnv+"="+p.Kubeconfig(world.Token("admin")), namespaceEnv+"="+namespace,
					"KUBE_FEATURE_WatchListClient="+gate, "KUBE_WATCHLIST_INCONSISTENCY_DETECTOR=true")
				got := follow(t, cmd, stop)
				if diff := cmp.Diff(direct(t, namespace), got); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// follow runs the informer, stops the churn once it has synced, and returns
// what it ends with.
func follow(t *testing.T, cmd *exec.Cmd, stop func()) map[string]bool {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for line := range lines(out) {
		if line == "synced" {
			stop()
		}
		if strings.HasPrefix(line, "has ") {
			got[line] = true
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the informer ended with %v", err)
	}
	return got
}

// lines are what r says, line by line.
func lines(r io.Reader) iter.Seq[string] {
	return func(yield func(string) bool) {
		for s := bufio.NewScanner(r); s.Scan() && yield(s.Text()); {
		}
	}
}

// churn creates, changes and deletes PodTemplates until stop, which waits for
// the last change: one called last.
func churn(t *testing.T, namespace string) (stop func()) {
	t.Helper()
	templates := kubernetes.NewForConfigOrDie(world.Config()).CoreV1().PodTemplates(namespace)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		var err error
		for n := 0; ctx.Err() == nil && err == nil; n++ {
			p := template(fmt.Sprintf("p-%d", n))
			if p, err = templates.Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
				break
			}
			p.Template.Annotations = map[string]string{"n": "1"}
			if _, err = templates.Update(t.Context(), p, metav1.UpdateOptions{}); err != nil {
				break
			}
			if n%3 == 0 {
				err = templates.Delete(t.Context(), p.Name, metav1.DeleteOptions{})
			}
		}
		done <- err
	}()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := templates.Create(t.Context(), template("last"), metav1.CreateOptions{}); err != nil {
			t.Error(err)
		}
	}
}

func template(name string) *corev1.PodTemplate {
	return &corev1.PodTemplate{ObjectMeta: metav1.ObjectMeta{Name: name}, Template: corev1.PodTemplateSpec{
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}}
}

func direct(t *testing.T, namespace string) map[string]bool {
	t.Helper()
	list, err := kubernetes.NewForConfigOrDie(world.Config()).CoreV1().PodTemplates(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for i := range list.Items {
		want[state(&list.Items[i])] = true
	}
	return want
}
