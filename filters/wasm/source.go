package wasm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// maxModule bounds a module, in bytes.
const maxModule = 64 << 20

// Sources are where modules come from. What is nil is not supported.
type Sources struct {
	// ConfigMap returns the key of binaryData, or nil if there is none.
	ConfigMap func(ctx context.Context, namespace, name, key string) ([]byte, error)
	// URL reads what is at an https address.
	URL func(ctx context.Context, url string) ([]byte, error)
	// OCI reads the one layer of an artifact, which it has checked.
	OCI func(ctx context.Context, reference string) ([]byte, error)
}

// moduleCode is a module's code, before it is needed.
type moduleCode struct {
	identity string // equal for equal code
	code     func() ([]byte, error)
}

// isLocal reports whether a source can be read at any time.
func isLocal(s *v1alpha1.WasmSource) bool { return s.File != "" || s.Inline != "" }

// local reads a source that needs no network.
func local(s *v1alpha1.WasmSource) (moduleCode, error) {
	code, err := s.InlineCode()
	if s.File != "" {
		code, err = readModule(s.File)
	}
	if err != nil {
		return moduleCode{}, err
	}
	if err := check(code, s.SHA256); err != nil {
		return moduleCode{}, err
	}
	return moduleCode{identity: digestOf(code), code: func() ([]byte, error) { return code, nil }}, nil
}

func readModule(name string) ([]byte, error) {
	f, err := os.Open(filepath.Clean(name))
	if err != nil {
		return nil, fmt.Errorf("read the module: %w", err)
	}
	defer f.Close()
	return readAll(f)
}

func readAll(r io.Reader) ([]byte, error) {
	code, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err != nil {
		return nil, fmt.Errorf("read the module: %w", err)
	}
	if len(code) > maxModule {
		return nil, errLarge
	}
	return code, nil
}

// check compares code with the digest that is asked for, if one is.
func check(code []byte, want string) error {
	if got := digestOf(code); want != "" && got != want {
		return fmt.Errorf("%w: it is %s", errDigest, got)
	}
	return nil
}

// digestLength is that of what digestOf returns.
const digestLength = 2 * sha256.Size

func digestOf(code []byte) string {
	sum := sha256.Sum256(code)
	return hex.EncodeToString(sum[:])
}

// pinOf is equal for sources whose code is: they are pinned.
func pinOf(s *v1alpha1.WasmSource) string {
	if s.OCI != "" {
		return digestOf([]byte(s.OCI))
	}
	return s.SHA256
}

var errUnsupported = errors.New("this proxy cannot fetch modules from there")

// read fetches a source that needs the network.
func (o *Sources) read(ctx context.Context, s *v1alpha1.WasmSource) (code []byte, err error) {
	switch {
	case s.ConfigMap != nil && o.ConfigMap != nil:
		code, err = o.ConfigMap(ctx, s.ConfigMap.Namespace, s.ConfigMap.Name, s.ConfigMap.Key)
	case s.URL != "" && o.URL != nil:
		code, err = o.URL(ctx, s.URL)
	case s.OCI != "" && o.OCI != nil:
		code, err = o.OCI(ctx, s.OCI)
	default:
		return nil, errUnsupported
	}
	if err != nil {
		return nil, err
	}
	return code, check(code, s.SHA256)
}
