// Package abuse sends a proxy what nobody should, and holds it to what others
// then get of it.
package abuse

import (
	"context"
	"io"
	"os"
	"testing"

	"github.com/portico-proxy/portico/test/controlplane"
)

var world *controlplane.ControlPlane

func TestMain(m *testing.M) {
	if as := os.Getenv(attackEnv); as != "" {
		os.Exit(attackAs(as))
	}
	if as := os.Getenv(floorEnv); as != "" {
		os.Exit(serveAs(as))
	}
	var err error
	world, err = controlplane.Start(context.Background(), controlplane.Options{Log: os.Stderr, Users: []controlplane.User{{Name: "mallory", Groups: []string{"system:masters"}}}})
	if err != nil {
		panic(err)
	}
	code := m.Run()
	if code != 0 {
		_, _ = io.WriteString(os.Stderr, world.LogTails(30))
	}
	world.Stop()
	os.Exit(code)
}
