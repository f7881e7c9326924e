// Package kubectl runs kubectl commands twice, straight to the API server and
// through the proxy, and compares what they print and how they end.
package kubectl

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

// cp is the control plane that all tests of this package share.
var cp *controlplane.ControlPlane

// ann is a user who may do nothing but what everybody may.
const ann = "ann"

func TestMain(m *testing.M) { goleak.VerifyTestMain(suite{m}) }

// suite runs all tests on one control plane with one node.
type suite struct{ tests *testing.M }

func (s suite) Run() int {
	ctx := context.Background()
	var err error
	cp, err = controlplane.Start(ctx, controlplane.Options{
		ControllerManager: true, Scheduler: true, Kwok: true,
		// The other nodes are those of tests.
		Flags: map[controlplane.Part][]string{
			controlplane.Kwok: {"--manage-all-nodes=false", "--manage-nodes-with-label-selector=type=kwok"},
		},
		Users: []controlplane.User{{Name: ann, Groups: []string{"devs"}}},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer cp.Stop()
	if err := cp.AddNode(ctx, "node-a"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return s.tests.Run()
}

func newProxy(t *testing.T) *proxy.Proxy {
	t.Helper()
	return proxy.New(t, proxy.Options{Kubeconfig: cp.KubeconfigPath()})
}
