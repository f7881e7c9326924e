// Package config holds one immutable Snapshot of what policies ask for, be they
// files or custom resources.
package config

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// maxFile bounds one policy file, in bytes: what etcd takes of one object.
const maxFile = 3 << 20

// Snapshot is what the proxy is asked to do, read at one moment. It is shared
// and never changed.
type Snapshot struct {
	// Objects are the policies in the order of their files' names, and then of
	// their own.
	Objects []runtime.Object
	// Digest is equal for equal policies.
	Digest string
	// Partial says that those of the API are not known yet: what they may
	// forbid is not to be done until they are.
	Partial bool
}

// Loader reads policies of the kinds that Scheme knows.
type Loader struct {
	Dir    string
	Scheme *runtime.Scheme
}

// Load reads every *.yaml, *.yml and *.json file of Dir, not below it. One bad
// document refuses them all: half a policy is another policy. An empty Dir
// means no policies.
func (l Loader) Load() (*Snapshot, error) {
	names, err := l.files()
	if err != nil {
		return nil, err
	}
	digest := sha256.New()
	snapshot := &Snapshot{}
	for _, name := range names {
		data, err := readFile(name)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(digest, "%s %d\n", filepath.Base(name), len(data))
		digest.Write(data)
		objects, err := l.decode(name, data)
		if err != nil {
			return nil, err
		}
		snapshot.Objects = append(snapshot.Objects, objects...)
	}
	snapshot.Digest = hex.EncodeToString(digest.Sum(nil))
	return snapshot, nil
}

// LoadFile reads the policies of one file.
func (l Loader) LoadFile(name string) ([]runtime.Object, error) {
	data, err := readFile(name)
	if err != nil {
		return nil, err
	}
	return l.decode(name, data)
}

func (l Loader) files() ([]string, error) {
	if l.Dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(l.Dir)
	if err != nil {
		return nil, fmt.Errorf("read policy directory (--policy-dir): %w", err)
	}
	var names []string
	for _, e := range entries {
		hidden := strings.HasPrefix(e.Name(), ".") // a mounted ConfigMap's ..data
		known := slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name()))
		if known && !hidden && !e.IsDir() {
			names = append(names, filepath.Join(l.Dir, e.Name()))
		}
	}
	return names, nil
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read policy file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read policy file: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("policy file %s is larger than %d bytes: split it", name, maxFile)
	}
	return data, nil
}

func (l Loader) decode(name string, data []byte) ([]runtime.Object, error) {
	decoder := serializer.NewCodecFactory(l.Scheme, serializer.EnableStrict).UniversalDeserializer()
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	var objects []runtime.Object
	for n := 1; ; n++ {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("policy file %s, document %d: %w", name, n, err)
		}
		if isEmpty(document) {
			continue
		}
		object, kind, err := decoder.Decode(document, nil, nil)
		if runtime.IsNotRegisteredError(err) {
			return nil, fmt.Errorf("policy file %s, document %d: this build of the proxy knows no %s", name, n, kind)
		}
		if err != nil {
			return nil, fmt.Errorf("policy file %s, document %d: %w", name, n, err)
		}
		if v, ok := object.(validated); ok {
			if err := v.Validate(); err != nil {
				return nil, fmt.Errorf("policy file %s, document %d: %w", name, n, err)
			}
		}
		objects = append(objects, object)
	}
}

// validated are the kinds whose rules the API server would keep, had it seen
// them.
type validated interface{ Validate() error }

// isEmpty reports a document that holds comments at most.
func isEmpty(document []byte) bool {
	data, err := yaml.YAMLToJSON(document)
	return err == nil && string(data) == "null"
}
