package controlplane

import (
	"context"
	"slices"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

func TestCallers(t *testing.T) {
	cp := New(t, Options{
		ControllerManager: true,
		Users:             []User{{Name: "ann", UID: "42", Groups: []string{"devs", "ops"}}, {Name: "bob", Token: "bobs-token"}},
	})
	now := time.Now()
	for _, c := range []struct {
		name   string
		cred   func(context.Context) (Credential, error)
		user   string // empty: refused
		groups []string
	}{
		{"static-token", static(cp.Token("ann")), "ann", []string{"devs", "ops"}},
		{"chosen-token", static(Credential{Token: "bobs-token"}), "bob", nil},
		{"admin-token", static(cp.Token("admin")), "admin", []string{"system:masters"}},
		{"admin-cert", static(cp.Admin()), "admin", []string{"system:masters"}},
		{"client-cert", func(context.Context) (Credential, error) {
			return cp.ClientCert("eve", "guests")
		}, "eve", []string{"guests"}},
		{"service-account", func(ctx context.Context) (Credential, error) {
			return cp.ServiceAccountToken(ctx, "default", "default", time.Hour)
		}, "system:serviceaccount:default:default", []string{"system:serviceaccounts:default"}},
		{"signed-token", func(ctx context.Context) (Credential, error) {
			return cp.SignToken(ctx, "default", "default", now.Add(-time.Hour), now.Add(time.Hour))
		}, "system:serviceaccount:default:default", []string{"system:serviceaccounts:default"}},
		{"expired-token", func(ctx context.Context) (Credential, error) {
			return cp.SignToken(ctx, "default", "default", now.Add(-2*time.Hour), now.Add(-time.Hour))
		}, "", nil},
		{"wrong-token", static(Credential{Token: "wrong"}), "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			cred, err := c.cred(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			who, err := whoAmI(t, cp.ConfigFor(cred))
			if c.user == "" {
				if !apierrors.IsUnauthorized(err) {
					t.Fatalf("%+v, %v; want 401", who, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if who.Username != c.user {
				t.Errorf("user %q, want %q", who.Username, c.user)
			}
			for _, group := range c.groups {
				if !slices.Contains(who.Groups, group) {
					t.Errorf("groups %q lack %q", who.Groups, group)
				}
			}
		})
	}
	t.Run("anonymous", func(t *testing.T) {
		client := newClient(t, cp.ConfigFor(Credential{}))
		_, err := client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
		if !apierrors.IsForbidden(err) {
			t.Errorf("list namespaces: %v, want 403", err)
		}
	})
}

func static(cred Credential) func(context.Context) (Credential, error) {
	return func(context.Context) (Credential, error) { return cred, nil }
}

func whoAmI(t *testing.T, config *rest.Config) (authenticationv1.UserInfo, error) {
	t.Helper()
	review, err := newClient(t, config).AuthenticationV1().SelfSubjectReviews().
		Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return authenticationv1.UserInfo{}, err
	}
	return review.Status.UserInfo, nil
}

// newClient returns a client that leaves no connection behind.
func newClient(t *testing.T, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	http, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(http.CloseIdleConnections)
	client, err := kubernetes.NewForConfigAndClient(config, http)
	if err != nil {
		t.Fatal(err)
	}
	return client
}
