package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// MaxSize bounds what is fetched, in bytes.
const MaxSize = 64 << 20

var (
	// ErrFetching is why something is not there yet.
	ErrFetching = errors.New("it is being fetched")

	errDigest      = errors.New("it has not the digest that is asked for")
	errLarge       = errors.New("it is larger than 64 MiB")
	errUnsupported = errors.New("this proxy cannot fetch from there")
	errPlain       = errors.New("it leads away from https")
	errLayers      = errors.New("the artifact must have one layer")
)

// A Source says where something is. One of File, URL, OCI and ConfigMap is set, or
// Inline is what there is.
type Source struct {
	File      string
	URL       string
	OCI       string
	ConfigMap *Key
	Inline    []byte
	// SHA256 is the digest that it must have; empty is any. What is behind a URL or
	// in a ConfigMap has one.
	SHA256 string
}

// A Key is one of a ConfigMap.
type Key struct{ Namespace, Name, Key string }

// Sources are how to get there. What is nil is not supported.
type Sources struct {
	// ConfigMap returns the key of binaryData, or nil if there is none.
	ConfigMap func(ctx context.Context, namespace, name, key string) ([]byte, error)
	// URL reads what is at an https address.
	URL func(ctx context.Context, url string) ([]byte, error)
	// OCI reads the one layer of an artifact, which it has checked.
	OCI func(ctx context.Context, reference string) ([]byte, error)
}

// Content is what a source holds, before it is needed.
type Content struct {
	Identity string // equal for equal content
	Read     func() ([]byte, error)
}

// isLocal reports whether a source can be read at any time.
func isLocal(s *Source) bool { return s.File != "" || s.Inline != nil }

// local reads a source that needs no network.
func local(s *Source) (Content, error) {
	code := s.Inline
	if s.File != "" {
		var err error
		if code, err = readFile(s.File); err != nil {
			return Content{}, err
		}
	}
	if err := check(code, s.SHA256); err != nil {
		return Content{}, err
	}
	return Content{Identity: DigestOf(code), Read: func() ([]byte, error) { return code, nil }}, nil
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(filepath.Clean(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing(name)
	}
	if err != nil {
		return nil, fmt.Errorf("read it: %w", err)
	}
	defer f.Close()
	return readAll(f)
}

// missing says where a file was looked for: whoever wrote the name sits at another
// machine than the one that reads it, most of the time.
func missing(name string) error {
	if whole, err := filepath.Abs(name); err == nil {
		name = whole
	}
	return fmt.Errorf("%w: %s was looked for where the proxy runs, on its machine or in its container; put it there, and it is taken", fs.ErrNotExist, name)
}

func readAll(r io.Reader) ([]byte, error) {
	code, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read it: %w", err)
	}
	if len(code) > MaxSize {
		return nil, errLarge
	}
	return code, nil
}

// check compares code with the digest that is asked for, if one is.
func check(code []byte, want string) error {
	if got := DigestOf(code); want != "" && got != want {
		return fmt.Errorf("%w: it is %s", errDigest, got)
	}
	return nil
}

// digestLength is that of what DigestOf returns.
const digestLength = 2 * sha256.Size

// DigestOf is a digest as sha256sum prints it.
func DigestOf(code []byte) string {
	sum := sha256.Sum256(code)
	return hex.EncodeToString(sum[:])
}

// Pin is equal for sources that hold the same: they are pinned.
func Pin(s *Source) string {
	if s.OCI != "" {
		return DigestOf([]byte(s.OCI))
	}
	return s.SHA256
}

// read fetches a source that needs the network.
func (o *Sources) read(ctx context.Context, s *Source) (code []byte, err error) {
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
