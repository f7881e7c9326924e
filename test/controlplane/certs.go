package controlplane

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// An authority signs certificates. Servers, clients and the front proxy have
// one each, so that whoever mixes them up is refused.
type authority struct {
	name    string
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
	certPEM []byte
}

func newAuthority(name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key of %s: %w", name, err)
	}
	t := certTemplate(pkix.Name{CommonName: name})
	t.IsCA, t.BasicConstraintsValid, t.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make certificate of %s: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse certificate of %s: %w", name, err)
	}
	return &authority{name: name, cert: cert, key: key, certPEM: pemBlock("CERTIFICATE", der)}, nil
}

// client returns a certificate for a user: the common name is the user, the
// organizations are the groups.
func (a *authority) client(user string, groups ...string) (certPEM, keyPEM []byte, err error) {
	t := certTemplate(pkix.Name{CommonName: user, Organization: groups})
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return a.sign(t)
}

// server returns a certificate for IP addresses and DNS names.
func (a *authority) server(name string, hosts ...string) (certPEM, keyPEM []byte, err error) {
	t := certTemplate(pkix.Name{CommonName: name})
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, host)
		}
	}
	return a.sign(t)
}

func (a *authority) sign(t *x509.Certificate) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("sign certificate: %w", err)
	}
	keyPEM, err = encodeKey(key)
	return pemBlock("CERTIFICATE", der), keyPEM, err
}

func certTemplate(subject pkix.Name) *x509.Certificate {
	// An error of crypto/rand ends the program; see rand.Read.
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      subject,
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(10 * 365 * 24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pemBlock("EC PRIVATE KEY", der), nil
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// pki is all the keys and certificates of a control plane.
type pki struct {
	dir                            string
	serverCA, clientCA, frontProxy *authority
	serviceAccount                 *ecdsa.PrivateKey
}

// newPKI makes keys and certificates and writes those the parts read to dir.
func newPKI(dir string, hosts []string) (*pki, error) {
	p := &pki{dir: dir}
	var err error
	for name, ca := range map[string]**authority{
		"server-ca": &p.serverCA, "client-ca": &p.clientCA, "front-proxy-ca": &p.frontProxy,
	} {
		if *ca, err = newAuthority(name); err != nil {
			return nil, err
		}
	}
	if p.serviceAccount, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, fmt.Errorf("make service account key: %w", err)
	}
	return p, p.write(hosts)
}

func (p *pki) write(hosts []string) error {
	for _, ca := range []*authority{p.serverCA, p.clientCA, p.frontProxy} {
		key, err := encodeKey(ca.key)
		if err := p.pair(ca.name, ca.certPEM, key, err); err != nil {
			return err
		}
	}
	saKey, err := encodeKey(p.serviceAccount)
	if err := p.pair("service-account", nil, saKey, err); err != nil {
		return err
	}
	cert, key, err := p.serverCA.server("kube-apiserver", hosts...)
	if err := p.pair("server", cert, key, err); err != nil {
		return err
	}
	cert, key, err = p.clientCA.client("kube-apiserver-kubelet-client", "system:masters")
	if err := p.pair("kubelet-client", cert, key, err); err != nil {
		return err
	}
	cert, key, err = p.frontProxy.client(frontProxyUser)
	return p.pair("front-proxy-client", cert, key, err)
}

// pair writes name.crt and name.key unless making them failed.
func (p *pki) pair(name string, cert, key []byte, err error) error {
	if err != nil {
		return err
	}
	if cert != nil {
		if err := os.WriteFile(p.cert(name), cert, 0o644); err != nil {
			return fmt.Errorf("write certificate: %w", err)
		}
	}
	if err := os.WriteFile(p.key(name), key, 0o600); err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	return nil
}

func (p *pki) cert(name string) string { return filepath.Join(p.dir, name+".crt") }
func (p *pki) key(name string) string  { return filepath.Join(p.dir, name+".key") }
