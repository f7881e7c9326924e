package server

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

var errHalfCertificate = errors.New("--tls-cert-file and --tls-private-key-file go together")

// ensureCertificate makes a self-signed certificate where none is given and
// keeps one it made before, so that clients that trust it go on doing so, until
// that has expired.
func (o *Options) ensureCertificate() error {
	if (o.CertFile == "") != (o.KeyFile == "") {
		return errHalfCertificate
	}
	if o.CertFile != "" {
		return nil
	}
	o.CertFile = filepath.Join(o.CertDir, "portico.crt")
	o.KeyFile = filepath.Join(o.CertDir, "portico.key")
	if o.isServable() {
		return nil
	}
	return o.selfSign(tenYears)
}

// isServable reports whether there is a pair that can be served. What is left of one
// that was not written to its end cannot.
func (o *Options) isServable() bool {
	pair, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
	return err == nil && time.Now().Before(pair.Leaf.NotAfter)
}

// selfSign makes a certificate for so long.
func (o *Options) selfSign(lasts time.Duration) error {
	crt, key, err := o.newCertificate(lasts)
	if err != nil {
		return fmt.Errorf("make a self-signed certificate: %w", err)
	}
	if err := cert.WriteCert(o.CertFile, crt); err != nil {
		return fmt.Errorf("write a self-signed certificate (--cert-dir): %w", err)
	}
	if err := os.WriteFile(o.KeyFile, key, 0o600); err != nil {
		return fmt.Errorf("write a self-signed certificate's key (--cert-dir): %w", err)
	}
	return nil
}

// tenYears is as long as nobody will run a proxy: whoever trusts its certificate would
// have to be told of another.
const tenYears = 10 * 365 * 24 * time.Hour

// clocksDiffer is by how much, at most, for a certificate to hold at once.
const clocksDiffer = time.Hour

// newCertificate returns a certificate with that of its authority, of which
// nobody has the key any more, and its own key. The keys are of an elliptic curve:
// to sign with one takes a server far less time than with RSA, at each handshake.
func (o *Options) newCertificate(lasts time.Duration) (crt, key []byte, err error) {
	host := "localhost"
	if o.BindAddress != nil && !o.BindAddress.IsUnspecified() {
		host = o.BindAddress.String()
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	ca, err := cert.NewSelfSignedCACert(cert.Config{CommonName: fmt.Sprintf("%s-ca@%d", host, now.Unix()), NotBefore: now.Add(-clocksDiffer)}, caKey)
	if err != nil {
		return nil, nil, err
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	leaf := o.leaf(host)
	leaf.SerialNumber, leaf.NotAfter = serial, leaf.NotBefore.Add(lasts)
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, leafKey.Public(), caKey)
	if err != nil {
		return nil, nil, err
	}
	var chain bytes.Buffer
	for _, c := range [][]byte{der, ca.Raw} {
		_ = pem.Encode(&chain, &pem.Block{Type: cert.CertificateBlockType, Bytes: c}) // into memory
	}
	key, err = keyutil.MarshalPrivateKeyToPEM(leafKey)
	return chain.Bytes(), key, err
}

// leaf is what the certificate says, but for when it ends.
func (o *Options) leaf(host string) *x509.Certificate {
	names := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
	if name, err := os.Hostname(); err == nil {
		names = append(names, name)
	}
	addresses := []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	if ip := net.ParseIP(host); ip != nil {
		addresses = append(addresses, ip)
	}
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: host},
		NotBefore:             time.Now().Add(-clocksDiffer).UTC(),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IPAddresses:           addresses,
		DNSNames:              names,
	}
}
