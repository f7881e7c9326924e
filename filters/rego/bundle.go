package rego

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"

	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// maxBundle bounds what a bundle unpacks to, in bytes.
const maxBundle = 32 << 20

var (
	errBundleSize = errors.New("the bundle unpacks to more than 32 MiB")
	errDelta      = errors.New("the bundle says only what has changed since another")
	errNoRego     = errors.New("the bundle has no policy in Rego")
)

// A Bundle is what `opa build` makes: modules, and data that they read.
type Bundle struct {
	revision string
	modules  map[string]string // by path
	data     map[string]any
	pkg      string // the package that is asked for; "" if there is only one
}

// ReadBundle unpacks a bundle, and checks its signature if somebody has to have
// signed it. The tests of its policies are left out.
func ReadBundle(packed []byte, s *v1alpha1.RegoSource) (*Bundle, error) {
	if err := checkSize(packed); err != nil {
		return nil, err
	}
	reader := bundle.NewReader(bytes.NewReader(packed)).WithSizeLimitBytes(maxBundle).
		WithCapabilities(capabilities()).WithRegoVersion(ast.RegoV1).WithSkipBundleVerification(s.SignedBy == nil)
	if k := s.SignedBy; k != nil {
		const id = "signer"
		reader = reader.WithBundleVerificationConfig(bundle.NewVerificationConfig(
			map[string]*bundle.KeyConfig{id: {Key: k.PublicKey, Algorithm: k.Signature()}}, id, "", nil))
	}
	read, err := reader.Read()
	if err != nil {
		return nil, located(err)
	}
	if read.Type() == bundle.DeltaBundleType {
		return nil, errDelta
	}
	b := &Bundle{revision: read.Manifest.Revision, modules: map[string]string{}, data: read.Data, pkg: s.Package}
	for _, m := range read.Modules {
		if !strings.HasSuffix(m.Path, "_test.rego") {
			b.modules[strings.TrimPrefix(m.Path, "/")] = string(m.Raw)
		}
	}
	if len(b.modules) == 0 {
		return nil, errNoRego
	}
	return b, nil
}

// checkSize unpacks a bundle into nothing: OPA bounds files, and not how many there
// are.
func checkSize(packed []byte) error {
	unpacked, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return fmt.Errorf("unpack the bundle: %w", err)
	}
	n, err := io.Copy(io.Discard, io.LimitReader(unpacked, maxBundle+1))
	if err != nil {
		return fmt.Errorf("unpack the bundle: %w", err)
	}
	if n > maxBundle {
		return errBundleSize
	}
	return nil
}
