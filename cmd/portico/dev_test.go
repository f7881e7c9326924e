package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"k8s.io/klog/v2"
)

func TestEachLineIsLoggedOnce(t *testing.T) {
	before := klog.CaptureState()
	t.Cleanup(before.Restore)
	var log bytes.Buffer
	logOnlyTo(&log)
	klog.Background().Error(errors.New("it failed"), "an error")
	klog.Background().Info("a word")
	klog.Warning("a warning")
	klog.Flush()
	for _, text := range []string{"an error", "a word", "a warning"} {
		if n := strings.Count(log.String(), text); n != 1 {
			t.Errorf("%q is there %d times: %s", text, n, &log)
		}
	}
}
