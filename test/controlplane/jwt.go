package controlplane

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// SignToken signs a token of a ServiceAccount that exists, with the API
// servers' own key and for times they would not grant: an expired one, for
// instance, or one that is valid for seconds.
func (c *ControlPlane) SignToken(ctx context.Context, namespace, name string, notBefore, expires time.Time) (Credential, error) {
	account, err := c.client.CoreV1().ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return Credential{}, fmt.Errorf("sign token: %w", err)
	}
	token, err := signJWT(c.pki.serviceAccount, map[string]any{
		"iss": issuer,
		"aud": []string{issuer},
		"sub": "system:serviceaccount:" + namespace + ":" + name,
		"iat": notBefore.Unix(),
		"nbf": notBefore.Unix(),
		"exp": expires.Unix(),
		"kubernetes.io": map[string]any{
			"namespace":      namespace,
			"serviceaccount": map[string]any{"name": name, "uid": account.UID},
		},
	})
	return Credential{Token: token}, err
}

// signJWT signs claims with ES256 (RFC 7515, RFC 7518 section 3.4).
func signJWT(key *ecdsa.PrivateKey, claims map[string]any) (string, error) {
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return "", fmt.Errorf("encode public key: %w", err)
	}
	// API servers look keys up by this name.
	id := sha256.Sum256(public)
	header, err := segment(map[string]any{"alg": "ES256", "kid": base64.RawURLEncoding.EncodeToString(id[:])})
	if err != nil {
		return "", err
	}
	payload, err := segment(claims)
	if err != nil {
		return "", err
	}
	text := header + "." + payload
	digest := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

func segment(v map[string]any) (string, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("encode token: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(text), nil
}
