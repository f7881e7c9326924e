package clients

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// last is the name of the object that is made when all changes are done.
const last = "this-is-all"

// A churn changes the ConfigMaps of a namespace without pause.
type churn struct {
	client kubernetes.Interface
	ns     string
	stop   context.CancelFunc
	done   sync.WaitGroup
	steps  chan struct{} // one for each change
}

// startChurn makes some objects and goes on changing them until its end.
func startChurn(t *testing.T, client kubernetes.Interface, ns string) *churn {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	c := &churn{client: client, ns: ns, stop: stop, steps: make(chan struct{})}
	for seed := range uint64(2) {
		random := rand.New(rand.NewPCG(seed, seed))
		c.done.Go(func() {
			for ctx.Err() == nil {
				if err := c.step(ctx, random); err != nil && ctx.Err() == nil {
					t.Errorf("change an object: %v", err)
				}
				select {
				case c.steps <- struct{}{}:
				default:
				}
			}
		})
	}
	t.Cleanup(func() { stop(); c.done.Wait() })
	c.more(300)
	return c
}

// more returns after so many further changes.
func (c *churn) more(changes int) {
	for range changes {
		<-c.steps
	}
}

// end makes the last change.
func (c *churn) end(t *testing.T) {
	t.Helper()
	c.stop()
	c.done.Wait()
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: last, Labels: map[string]string{"half": "1"}}}
	if _, err := c.client.CoreV1().ConfigMaps(c.ns).Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// step makes, changes, relabels or deletes a random object.
func (c *churn) step(ctx context.Context, random *rand.Rand) error {
	name := fmt.Sprintf("web-%d", random.IntN(250))
	maps := c.client.CoreV1().ConfigMaps(c.ns)
	var err error
	switch random.IntN(6) {
	case 0:
		err = maps.Delete(ctx, name, metav1.DeleteOptions{})
	case 1, 2:
		_, err = maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	case 3:
		// Into the half that has the label, and out of it.
		label := []string{`"1"`, "null"}[random.IntN(2)]
		_, err = maps.Patch(ctx, name, types.MergePatchType, []byte(`{"metadata":{"labels":{"half":`+label+`}}}`), metav1.PatchOptions{})
	default:
		data := fmt.Sprintf(`{"data":{"text":"%d%s"}}`, random.Int(), strings.Repeat("x", random.IntN(8000)))
		_, err = maps.Patch(ctx, name, types.MergePatchType, []byte(data), metav1.PatchOptions{})
	}
	if apierrors.IsNotFound(err) || apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
