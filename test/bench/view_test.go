package bench

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/portico-proxy/portico/plugins/tck"
)

// lookingInC keeps every object, after a look at three of its fields.
const lookingInC = `
typedef unsigned int u32;
#define EXPORT(name) __attribute__((export_name(#name)))
__attribute__((import_module("portico.v1"), import_name("object_get")))
unsigned long long object_get(const char *, u32, char *, u32);
static char buf[64];
EXPORT(portico_abi_v1) void portico_abi_v1(void) {}
EXPORT(on_object) int on_object(void) {
	if (object_get("/metadata/labels/hide", 21, buf, 64)) return 1;
	if (object_get("/metadata/namespace", 19, buf, 64) == 0) return 1;
	return object_get("/metadata/annotations/hide", 26, buf, 64) ? 1 : 0;
}
`

const lookingPolicy = `apiVersion: proxy.elf.io/v1alpha1
kind: WasmFilter
metadata: {name: looking}
spec:
  source: {inline: %s}
  limits: {wallClock: 1s}
---
apiVersion: proxy.elf.io/v1alpha1
kind: FilterBinding
metadata: {name: looking}
spec:
  phase: View
  filterRef: {kind: WasmFilter, name: looking}
  match: {verbs: [list]}
`

// BenchmarkView lists all pods, which are many, from memory: with a filter that
// looks at every object, and without one. The first time it is asked about each of
// them; what it said is remembered.
func BenchmarkView(b *testing.B) {
	bed := newBed(b)
	bed.objects.rest(b)
	behind := bed.another(b, "--policy-dir="+lookingDir(b)).client(b)
	without := bed.proxied.client(b)
	q := question{path: bed.objects.all(), accept: asJSON}
	for _, c := range []*client{without, behind} {
		// A watch has memory load what the list is of, and no filter look at it.
		mustRead(b, c, question{path: q.path + "&watch=true&timeoutSeconds=3", accept: asJSON})
	}
	first := took(b, behind, q)
	var plain, viewed sample
	for b.Loop() {
		plain.addTime(took(b, without, q))
		viewed.addTime(took(b, behind, q))
	}
	b.ReportMetric(0, "ns/op")
	base := plain.median()
	firstAdded := float64(first.Microseconds())/1000 - base
	b.ReportMetric(base, "plain-ms")
	b.ReportMetric(firstAdded, "first-added-ms")
	b.ReportMetric(viewed.median()-base, "again-added-ms")
	bed.table.add(row{"list through a view, first", ms(base), ms(base + firstAdded), fmt.Sprintf("%+.0f ms", firstAdded), "+60 ms"})
	bed.table.add(row{"list through a view, again", ms(base), ms(viewed.median()), fmt.Sprintf("%+.0f ms", viewed.median()-base), "+60 ms"})
	bed.table.print(os.Stdout)
}

func took(b *testing.B, c *client, q question) time.Duration {
	b.Helper()
	began := time.Now()
	mustRead(b, c, q)
	return time.Since(began)
}

// lookingDir has the policies of the filter.
func lookingDir(b *testing.B) string {
	b.Helper()
	source := filepath.Join(b.TempDir(), "looking.c")
	if err := os.WriteFile(source, []byte(lookingInC), 0o600); err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	policy := fmt.Sprintf(lookingPolicy, base64.StdEncoding.EncodeToString(tck.FromC(b, source)))
	if err := os.WriteFile(filepath.Join(dir, "looking.yaml"), []byte(policy), 0o600); err != nil {
		b.Fatal(err)
	}
	return dir
}
