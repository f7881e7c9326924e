package memory

import (
	"bufio"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

// node is whom the API server's Node authorizer knows as node n1: it may list
// pods by spec.nodeName=n1 only, and read what its own pods refer to.
const node = "system:node:n1"

// stream is a watch that is read frame by frame.
type stream struct {
	t      *testing.T
	body   io.ReadCloser
	frames *bufio.Reader
	answer // without its body
}

func (s side) watch(t *testing.T, path string) *stream {
	t.Helper()
	res, err := s.client.Get(s.url + path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return &stream{t: t, body: res.Body, frames: bufio.NewReader(res.Body), answer: answer{code: res.StatusCode, servedBy: res.Header.Get("Portico-Served-By")}}
}

// next returns the next frame, and false at the watch's end.
func (s *stream) next() (string, bool) {
	s.t.Helper()
	frame, err := s.frames.ReadString('\n')
	if err != nil && err != io.EOF {
		s.t.Fatalf("the watch broke: %v", err)
	}
	return frame, err == nil
}

// until returns the frames up to the first that holds mark.
func (s *stream) until(mark string) (frames []string) {
	s.t.Helper()
	for {
		frame, ok := s.next()
		if !ok {
			s.t.Fatalf("the watch ended before %s", mark)
		}
		if frames = append(frames, frame); strings.Contains(frame, mark) {
			return frames
		}
	}
}

// ends reads to the end, which must be that of a watch and not a break.
func (s *stream) ends() {
	s.t.Helper()
	for ok := true; ok; {
		_, ok = s.next()
	}
}

// sameAnswers asks both sides, memory where upstream gives an answer, and wants
// code from both.
func sameAnswers(t *testing.T, code int, direct, proxied side, paths ...string) {
	t.Helper()
	for _, path := range paths {
		want := direct.get(t, path)
		got := proxied.get(t, path)
		if want.code == http.StatusOK {
			got = proxied.fromMemory(t, path)
		} else if got.servedBy != "upstream" {
			t.Errorf("%s: the refusal is served by %s", path, got.servedBy)
		}
		if want.code != code || got.code != code || items(got) != items(want) {
			t.Errorf("%s: got %d %s\nwant %d %s", path, got.code, got.body, want.code, want.body)
		}
	}
}

// podOn makes a pod of a node that mounts a ConfigMap.
func podOn(t *testing.T, namespace, name, onNode, configMap string) {
	t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{NodeName: onNode, Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	if configMap != "" {
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: configMap}}}}}
	}
	if _, err := admin(t).CoreV1().Pods(namespace).Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func configMap(t *testing.T, namespace, name string) {
	t.Helper()
	c := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := admin(t).CoreV1().ConfigMaps(namespace).Create(t.Context(), c, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

const configMapsKept = "apiVersion: proxy.elf.io/v1alpha1\nkind: CachePolicy\nmetadata: {name: kept}\nspec: {resources: [{resource: configmaps}]}\n"

// nodes are ways for a node to come to the proxy: by a token, and by its
// certificate, which passes by impersonation.
func nodes(t *testing.T, p *proxy.Proxy) map[string]side {
	t.Helper()
	cert, err := world.ClientCert(node, "system:nodes")
	if err != nil {
		t.Fatal(err)
	}
	return map[string]side{"token": newSide(t, p.Config(world.Token(node))), "certificate": newSide(t, p.Config(cert))}
}

func TestNodeGetsItsOwnFromMemory(t *testing.T) {
	home := namespace(t)
	configMap(t, home, "mine")
	configMap(t, home, "theirs")
	podOn(t, home, "web", "n1", "mine")
	podOn(t, home, "vault", "n2", "theirs")
	files := t.TempDir()
	putInPlace(t, filepath.Join(files, "kept.yaml"), configMapsKept)
	p := cached(t, "--policy-dir="+files, "--client-ca-file="+world.ClientCAFile(), "--impersonate-x509")
	direct := newSide(t, world.ConfigFor(world.Token(node)))
	in := "/api/v1/namespaces/" + home
	// The authorizer learns of pods in its own time.
	until(t, "the node may read its ConfigMap", func() bool { return direct.get(t, in+"/configmaps/mine").code == http.StatusOK })

	const own = "fieldSelector=spec.nodeName%3Dn1"
	for name, proxied := range nodes(t, p) {
		t.Run(name, func(t *testing.T) {
			sameAnswers(t, http.StatusOK, direct, proxied,
				"/api/v1/pods?resourceVersion=0&"+own, "/api/v1/pods?"+own, in+"/pods?resourceVersion=0&"+own,
				"/api/v1/pods?resourceVersion=0&fieldSelector=metadata.name%3Dweb%2Cspec.nodeName%3Dn1",
				in+"/pods/web?resourceVersion=0", in+"/configmaps/mine?resourceVersion=0",
			)
			// What it may not have, in the API server's words.
			sameAnswers(t, http.StatusForbidden, direct, proxied,
				"/api/v1/pods?resourceVersion=0", in+"/pods?resourceVersion=0", "/api/v1/pods?resourceVersion=0&fieldSelector=spec.nodeName%3Dn2",
				"/api/v1/pods?resourceVersion=0&fieldSelector=spec.nodeName%21%3Dn2", "/api/v1/pods?resourceVersion=0&labelSelector=a%3Db",
				in+"/pods/vault?resourceVersion=0", in+"/configmaps/theirs?resourceVersion=0", in+"/configmaps?resourceVersion=0",
				"/api/v1/pods?watch=1&resourceVersion=0", "/api/v1/pods?watch=1&resourceVersion=0&fieldSelector=spec.nodeName%3Dn2",
			)
		})
	}
}

func TestNodeFollowsItsOwnFromMemory(t *testing.T) {
	home := namespace(t)
	podOn(t, home, "first", "n1", "")
	p := cached(t, "--client-ca-file="+world.ClientCAFile(), "--impersonate-x509")
	direct := newSide(t, world.ConfigFor(world.Token(node)))
	const own = "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1"
	ways := nodes(t, p)
	for _, proxied := range ways {
		proxied.fromMemory(t, own+"&resourceVersion=0")
	}
	list, err := admin(t).CoreV1().Pods(home).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	from := own + "&watch=1&timeoutSeconds=3600&resourceVersion=" + list.ResourceVersion
	watches := map[string]*stream{}
	for name, proxied := range ways {
		watches[name] = proxied.watch(t, from)
		if by := watches[name].servedBy; by != "cache" {
			t.Errorf("%s: the watch is served by %s", name, by)
		}
	}
	wanted := direct.watch(t, from)
	podOn(t, home, "elsewhere", "n2", "")
	podOn(t, home, "second", "n1", "")
	pods := admin(t).CoreV1().Pods(home)
	if err := pods.Delete(t.Context(), "first", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
	podOn(t, home, "last", "n1", "")
	want := strings.Join(wanted.until(`"last"`), "")
	for name, w := range watches {
		if got := strings.Join(w.until(`"last"`), ""); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
	}
}

// revocations take joe's right to watch pods in a namespace away.
var revocations = map[string]func(*testing.T, string) error{
	"binding-deleted": func(t *testing.T, home string) error {
		return admin(t).RbacV1().RoleBindings(home).Delete(t.Context(), "joe", metav1.DeleteOptions{})
	},
	"subject-removed": func(t *testing.T, home string) error {
		binding, err := admin(t).RbacV1().RoleBindings(home).Get(t.Context(), "joe", metav1.GetOptions{})
		if err == nil {
			binding.Subjects = []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "somebody-else"}}
			_, err = admin(t).RbacV1().RoleBindings(home).Update(t.Context(), binding, metav1.UpdateOptions{})
		}
		return err
	},
	"verb-removed": func(t *testing.T, home string) error {
		role, err := admin(t).RbacV1().Roles(home).Get(t.Context(), "joe", metav1.GetOptions{})
		if err == nil {
			role.Rules[0].Verbs = []string{"get"}
			_, err = admin(t).RbacV1().Roles(home).Update(t.Context(), role, metav1.UpdateOptions{})
		}
		return err
	},
}

// TestRevocationEndsTheWatch has two watch the same pods. Who loses the right
// loses the watch, long before its time is over; the other goes on.
func TestRevocationEndsTheWatch(t *testing.T) {
	cert, err := world.ClientCert("joe")
	if err != nil {
		t.Fatal(err)
	}
	p := cached(t, "--client-ca-file="+world.ClientCAFile(), "--impersonate-x509")
	for way, cred := range map[string]controlplane.Credential{"token": world.Token("joe"), "certificate": cert} {
		for name, revoke := range revocations {
			t.Run(way+"/"+name, func(t *testing.T) {
				home := namespace(t)
				allow(t, "joe", home)
				allow(t, "jane", home)
				pods := "/api/v1/namespaces/" + home + "/pods?resourceVersion=0"
				joe, jane := newSide(t, p.Config(cred)), newSide(t, p.Config(world.Token("jane")))
				watchOf := func(s side) *stream {
					t.Helper()
					s.fromMemory(t, pods)
					w := s.watch(t, pods+"&watch=1&timeoutSeconds=3600")
					if w.servedBy != "cache" {
						t.Fatalf("the watch is served by %s", w.servedBy)
					}
					return w
				}
				loses, keeps := watchOf(joe), watchOf(jane)
				if err := revoke(t, home); err != nil {
					t.Fatal(err)
				}
				loses.ends()
				pod(t, home, "news")
				keeps.until(`"news"`)
				direct := newSide(t, world.ConfigFor(world.Token("joe")))
				sameAnswers(t, http.StatusForbidden, direct, joe, pods, pods+"&watch=1")
			})
		}
	}
}
