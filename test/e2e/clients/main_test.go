// Package clients runs what people run against an API server through the proxy.
package clients

import (
	"context"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/portico-proxy/portico/test/controlplane"
)

// world is one control plane for all tests of the package. Its
// controller-manager and scheduler are started by the test that is about them.
var world *controlplane.ControlPlane

func TestMain(m *testing.M) {
	var err error
	world, err = controlplane.Start(context.Background(), controlplane.Options{ControllerManager: true, Scheduler: true, Kwok: true, Log: os.Stderr})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if code != 0 {
		_, _ = io.WriteString(os.Stderr, world.LogTails(30))
	}
	world.Stop()
	os.Exit(code)
}
