package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/util/cert"

	"github.com/portico-proxy/portico/test/authority"
)

// unbound is a listener that listens nowhere.
type unbound struct{ net.Listener }

func (unbound) Addr() net.Addr { return &net.TCPAddr{} }
func (unbound) Close() error   { return nil }

// FuzzCertificates serves with whatever the files of a certificate and of clients'
// authorities hold: it begins with what Go can serve, and otherwise says which file
// is wrong, and nothing of a key.
func FuzzCertificates(f *testing.F) {
	a := authority.New(f)
	certFile, keyFile := a.Pair("localhost")
	seeds := map[string][]byte{}
	for _, file := range []string{certFile, keyFile, a.File} {
		content, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		seeds[file] = content
	}
	f.Add(seeds[certFile], seeds[keyFile], seeds[a.File])
	f.Add(append(bytes.Clone(seeds[certFile]), seeds[a.File]...), seeds[keyFile], []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, crt, key, ca []byte) {
		o := Options{CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key"), Listener: unbound{}, Log: logr.Discard()}
		caFile := filepath.Join(dir, "ca.crt")
		for file, content := range map[string][]byte{o.CertFile: crt, o.KeyFile: key, caFile: ca} {
			if err := os.WriteFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := New(o)
		if _, refused := tls.LoadX509KeyPair(o.CertFile, o.KeyFile); (err == nil) != (refused == nil) {
			t.Fatalf("it begins with %v, and Go with %v", err, refused)
		}
		if err != nil {
			checkRefusal(t, err, o.CertFile, key)
			return
		}
		if _, err := cert.ParseCertsPEM(ca); err != nil {
			return // what is made of it is never stopped
		}
		if s.options.ClientCA, err = dynamiccertificates.NewDynamicCAContentFromFile("client-ca", caFile); err != nil {
			t.Fatalf("client-go reads %q, and %v", ca, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		c, err := s.tlsConfig(ctx, &wg)
		cancel()
		wg.Wait()
		if err == nil && c.GetConfigForClient == nil {
			t.Fatal("nothing follows the files")
		}
	})
}

func checkRefusal(t *testing.T, err error, file string, key []byte) {
	t.Helper()
	if !strings.Contains(err.Error(), file) {
		t.Fatalf("%v: it does not say which file", err)
	}
	if block, _ := pem.Decode(key); block != nil && len(block.Bytes) > 8 && strings.Contains(err.Error(), string(block.Bytes)) {
		t.Fatalf("%v: it tells the key", err)
	}
}
