package controlplane

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A program is one executable and the package it is built from, as seen from
// the module in the programs directory.
type program struct{ name, pkg string }

// programs, quickest to build first, so that a person sees progress early.
var programs = []program{
	{"etcd", "./etcd"},
	{"kwok", "sigs.k8s.io/kwok/cmd/kwok"},
	{"kubectl", "./kubectl"},
	{"kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"},
	{"kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"},
	{"kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"},
}

// stageSources are the directories of kwok's module whose Stage objects make
// nodes Ready, keep their leases fresh and run pods.
var stageSources = []string{
	"kustomize/stage/node/fast",
	"kustomize/stage/node/heartbeat-with-lease",
	"kustomize/stage/pod/fast",
}

func programNames() []string {
	names := make([]string, len(programs))
	for i, p := range programs {
		names[i] = p.name
	}
	return names
}

// build makes the programs of one version in one directory.
type build struct {
	src      string // the programs' Go module
	dir      string // where they go
	ldflags  string
	progress io.Writer
}

func newBuild(ctx context.Context, o ProgramsOptions) (*build, error) {
	src, err := findSource()
	if err != nil {
		return nil, err
	}
	b := &build{src: src, progress: o.Progress}
	if b.progress == nil {
		b.progress = io.Discard
	}
	if b.ldflags, err = versionFlags(filepath.Join(src, "go.mod")); err != nil {
		return nil, err
	}
	key, err := b.key(ctx)
	if err != nil {
		return nil, err
	}
	cache, err := cacheDir(o.Cache)
	if err != nil {
		return nil, err
	}
	b.dir = filepath.Join(cache, "controlplane", key)
	return b, nil
}

// findSource looks where this file was compiled, then upwards from the
// working directory, for binaries built with -trimpath.
func findSource() (string, error) {
	if _, file, _, ok := runtime.Caller(0); ok {
		if dir := filepath.Join(filepath.Dir(file), "programs"); exists(filepath.Join(dir, "go.mod")) {
			return dir, nil
		}
	}
	wd, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find source of programs: %w", err)
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		src := filepath.Join(dir, "test", "controlplane", "programs")
		if exists(filepath.Join(src, "go.mod")) {
			return src, nil
		}
		if dir == filepath.Dir(dir) {
			return "", ErrNoSource
		}
	}
}

func cacheDir(given string) (string, error) {
	if dir := cmp.Or(given, os.Getenv(CacheEnv)); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache directory (set %s): %w", CacheEnv, err)
	}
	return filepath.Join(dir, "portico"), nil
}

var kubernetesVersion = regexp.MustCompile(`(?m)^\s*k8s\.io/kubernetes v((\d+)\.(\d+)\.\d+)$`)

// versionFlags returns linker flags by which the programs know their version.
// Without them they report v0.0.0-master, which clients fail to parse.
func versionFlags(gomod string) (string, error) {
	text, err := os.ReadFile(gomod)
	if err != nil {
		return "", fmt.Errorf("read version of programs: %w", err)
	}
	m := kubernetesVersion.FindSubmatch(text)
	if m == nil {
		return "", fmt.Errorf("read version of programs: no k8s.io/kubernetes in %s", gomod)
	}
	flags := "-s -w"
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		for _, v := range []string{
			fmt.Sprintf("gitVersion=v%s", m[1]), fmt.Sprintf("gitMajor=%s", m[2]), fmt.Sprintf("gitMinor=%s", m[3]),
			"gitCommit=unknown", "gitTreeState=clean", "buildDate=1970-01-01T00:00:00Z",
		} {
			flags += " -X " + pkg + "." + v
		}
	}
	return flags, nil
}

// key names what the programs depend on: their sources, how they are built and
// the compiler.
func (b *build) key(ctx context.Context) (string, error) {
	env, err := b.goCommand(ctx, "env", "GOVERSION", "GOOS", "GOARCH").Output()
	if err != nil {
		return "", fmt.Errorf("run go env (building the control plane needs Go): %w", err)
	}
	files, err := filepath.Glob(filepath.Join(b.src, "*", "*.go"))
	if err != nil {
		return "", fmt.Errorf("find sources of programs: %w", err)
	}
	files = append(files, filepath.Join(b.src, "go.mod"), filepath.Join(b.src, "go.sum"))
	slices.Sort(files)

	h := sha256.New()
	fmt.Fprintf(h, "%s\n%s\n%v\n%v\n", env, b.ldflags, programs, stageSources)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("read source of programs: %w", err)
		}
		fmt.Fprintf(h, "%s %x\n", filepath.Base(file), sha256.Sum256(text))
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

func (b *build) complete() bool {
	missing := func(name string) bool { return !exists(filepath.Join(b.dir, name)) }
	return !slices.ContainsFunc(append(programNames(), stagesDir), missing)
}

// all makes what is missing. The caller holds the lock.
func (b *build) all(ctx context.Context) error {
	for _, p := range programs {
		if exists(filepath.Join(b.dir, p.name)) {
			continue
		}
		if err := b.one(ctx, p); err != nil {
			return err
		}
	}
	if exists(filepath.Join(b.dir, stagesDir)) {
		return nil
	}
	return b.copyStages(ctx)
}

// one builds a program under another name first, so that nobody sees half.
func (b *build) one(ctx context.Context, p program) error {
	done := b.announce(p.name)
	tmp := filepath.Join(b.dir, "."+p.name)
	cmd := b.goCommand(ctx, "build", "-trimpath", "-buildvcs=false", "-ldflags", b.ldflags, "-o", tmp, p.pkg)
	if out, err := cmd.CombinedOutput(); err != nil {
		done("failed")
		return fmt.Errorf("build %s: %w\n%s", p.name, err, lastLines(out, 20))
	}
	if err := os.Rename(tmp, filepath.Join(b.dir, p.name)); err != nil {
		return fmt.Errorf("build %s: %w", p.name, err)
	}
	done("done")
	return nil
}

// announce tells what is being built and, every ten seconds, that it still is.
func (b *build) announce(name string) (done func(result string)) {
	began := time.Now()
	fmt.Fprintf(b.progress, "building %s (the first time takes minutes) ...", name)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(10 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				fmt.Fprint(b.progress, ".")
			}
		}
	}()
	return func(result string) {
		close(stop)
		<-stopped
		fmt.Fprintf(b.progress, " %s, %s\n", result, time.Since(began).Round(time.Second))
	}
}

// copyStages takes kwok's Stage objects out of its module.
func (b *build) copyStages(ctx context.Context) error {
	out, err := b.goCommand(ctx, "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok").Output()
	if err != nil {
		return fmt.Errorf("find kwok's module: %w", err)
	}
	tmp, err := os.MkdirTemp(b.dir, "."+stagesDir)
	if err != nil {
		return fmt.Errorf("copy kwok's stages: %w", err)
	}
	for _, dir := range stageSources {
		if err := copyYAML(filepath.Join(strings.TrimSpace(string(out)), dir), tmp); err != nil {
			return fmt.Errorf("copy kwok's stages: %w", err)
		}
	}
	return os.Rename(tmp, filepath.Join(b.dir, stagesDir))
}

// copyYAML copies the manifests in one directory to another.
func copyYAML(from, to string) error {
	files, err := filepath.Glob(filepath.Join(from, "*.yaml"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if filepath.Base(file) == "kustomization.yaml" {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(file)), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// goCommand runs the go command in the programs' module. What the environment
// says about the caller's build (flags, workspace, target) does not hold here.
func (b *build) goCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = b.src
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if !slices.Contains([]string{"GOFLAGS", "GOWORK", "GOOS", "GOARCH", "GO111MODULE", "PWD"}, name) {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	// Set, not unset: `go env -w` may have stored other values.
	cmd.Env = append(cmd.Env, "GOFLAGS=-mod=readonly", "GOWORK=off", "GO111MODULE=on", "PWD="+b.src)
	return cmd
}

// lastLines returns the last n lines of text.
func lastLines(text []byte, n int) string {
	lines := bytes.Split(bytes.TrimRight(text, "\n"), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-n):], []byte("\n")))
}
