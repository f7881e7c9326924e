package replicas

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/util/cert"

	"github.com/portico-proxy/portico/test/authority"
)

func contentOf(f *testing.F, file string) []byte {
	f.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		f.Fatal(err)
	}
	return content
}

// FuzzIdentity reads the files of a peer's certificate. What is taken has a
// certificate of its key and an authority; what is refused is refused by the name of
// the file, and says nothing of a key.
func FuzzIdentity(f *testing.F) {
	a := authority.New(f)
	certFile, keyFile := a.Pair("127.0.0.1")
	crt, key, ca := contentOf(f, certFile), contentOf(f, keyFile), contentOf(f, a.File)
	f.Add(crt, key, ca)
	f.Add(append(bytes.Clone(crt), ca...), append(bytes.Clone(key), key...), []byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Add(key, crt, append([]byte("# ours\n"), ca...))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, crt, key, ca []byte) {
		i := Identity{CertFile: filepath.Join(dir, "crt"), KeyFile: filepath.Join(dir, "key"), CAFile: filepath.Join(dir, "ca")}
		for file, content := range map[string][]byte{i.CertFile: crt, i.KeyFile: key, i.CAFile: ca} {
			if err := os.WriteFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c, err := i.read()
		if err != nil {
			if !strings.Contains(err.Error(), dir) {
				t.Fatalf("%v: it does not say which file", err)
			}
			if block, _ := pem.Decode(key); block != nil && len(block.Bytes) > 8 && bytes.Contains([]byte(err.Error()), block.Bytes) {
				t.Fatalf("%v: it tells the key", err)
			}
			return
		}
		authorities, err := cert.ParseCertsPEM(ca)
		if err != nil || len(authorities) == 0 {
			t.Fatalf("%q has no authority by client-go: %v", ca, err)
		}
		checkConfig(t, c)
	})
}

func checkConfig(t *testing.T, c *tls.Config) {
	t.Helper()
	if len(c.Certificates) != 1 || c.ClientAuth != tls.RequireAndVerifyClientCert || c.ClientCAs == nil {
		t.Fatalf("%+v", c)
	}
	own := c.Certificates[0]
	if k, ok := own.PrivateKey.(*ecdsa.PrivateKey); ok && own.Leaf != nil && !k.PublicKey.Equal(own.Leaf.PublicKey) {
		t.Fatal("the certificate is another key's")
	}
}

// FuzzMessages has strangers speak, with no certificate: they are refused, and what
// they say changes nothing.
func FuzzMessages(f *testing.F) {
	f.Add(uint8(0), []byte(`{"address":"127.0.0.1:2","instance":"i","members":[{"address":"127.0.0.1:3"}]}`))
	f.Add(uint8(1), []byte(`{"from":"127.0.0.1:2","floors":[{"resource":"pods","resourceVersion":7}]}`))
	f.Add(uint8(2), []byte(`[`))
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) {
		r := &Replicas{options: Options{Address: "127.0.0.1:1", Log: logr.Discard()}, peers: map[string]*peer{}, now: time.Now}
		path := []string{leasePath, floorsPath, leavePath}[kind%3]
		w := httptest.NewRecorder()
		r.handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, bytes.NewReader(body)))
		if w.Code != http.StatusForbidden && w.Code != http.StatusBadRequest || len(r.peers) > 0 {
			t.Fatalf("%s of %q is answered %d; peers are %v", path, body, w.Code, r.peers)
		}
	})
}
