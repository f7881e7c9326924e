package chaos

import (
	"io"
	"os"
	"testing"

	"k8s.io/klog/v2"
)

// TestMain silences client-go, which tells of each watch that was cut.
func TestMain(m *testing.M) {
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)
	os.Exit(m.Run())
}
