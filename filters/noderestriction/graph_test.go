package noderestriction

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func local(name string) *corev1.LocalObjectReference {
	return &corev1.LocalObjectReference{Name: name}
}

// TestPodsNeedAllThatTheyReferTo names each reference by where it is.
func TestPodsNeedAllThatTheyReferTo(t *testing.T) {
	env := func(name string) ([]corev1.EnvFromSource, []corev1.EnvVar) {
		return []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: *local(name + "-from")}}, {ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: *local(name + "-from")}}},
			[]corev1.EnvVar{
				{ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: *local(name + "-key")}}},
				{ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: *local(name + "-key")}}}, {Name: "plain"},
			}
	}
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: corev1.PodSpec{
		ServiceAccountName: "robot", ImagePullSecrets: []corev1.LocalObjectReference{*local("pull")},
		ResourceClaims: []corev1.PodResourceClaim{{ResourceClaimName: new("gpu")}},
	}}
	var c, i, e corev1.Container
	c.EnvFrom, c.Env = env("c")
	i.EnvFrom, i.Env = env("i")
	e.EnvFrom, e.Env = env("e")
	p.Spec.Containers, p.Spec.InitContainers = []corev1.Container{c}, []corev1.Container{i}
	p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon(e)}}
	p.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{ResourceClaimName: new("made")}}
	for _, v := range []corev1.VolumeSource{
		{Secret: &corev1.SecretVolumeSource{SecretName: "volume"}}, {ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: *local("volume")}},
		{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "disk"}}, {Ephemeral: &corev1.EphemeralVolumeSource{}},
		{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{Secret: &corev1.SecretProjection{LocalObjectReference: *local("projected")}}, {ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: *local("projected")}},
		}}},
		{CSI: &corev1.CSIVolumeSource{NodePublishSecretRef: local("csi")}}, {RBD: &corev1.RBDVolumeSource{SecretRef: local("rbd")}},
		{AzureFile: &corev1.AzureFileVolumeSource{SecretName: "azure"}}, {EmptyDir: &corev1.EmptyDirVolumeSource{}},
	} {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: fmt.Sprint("v", len(p.Spec.Volumes)), VolumeSource: v})
	}
	g := newGraph()
	g.put(p)
	for resource, want := range map[string][]string{
		secrets:    {"pull", "c-from", "c-key", "i-from", "i-key", "e-from", "e-key", "volume", "projected", "csi", "rbd", "azure"},
		configMaps: {"c-from", "c-key", "i-from", "i-key", "e-from", "e-key", "volume", "projected"},
		claims:     {"disk", "web-v3"}, accounts: {"robot"}, resClaims: {"gpu", "made"},
	} {
		all := map[ref]bool{}
		for _, name := range want {
			all[ref{resource, "shop", name}] = true
		}
		got, _ := g.all(resource, "shop")
		if diff := cmp.Diff(all, got, cmp.AllowUnexported(ref{})); diff != "" {
			t.Errorf("%s: %s", resource, diff)
		}
	}
	if !g.needs(ref{resource: namespaces, name: "shop"}) || g.needs(ref{secrets, "bank", "pull"}) {
		t.Error("another namespace")
	}
}

func withSecret(uid, version, secret string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: types.UID(uid), ResourceVersion: version}, Spec: corev1.PodSpec{
		ImagePullSecrets: []corev1.LocalObjectReference{*local(secret)},
	}}
}

// TestWhatIsReadBesideTheWatchBringsNothingBack plays what may come in any order.
func TestWhatIsReadBesideTheWatchBringsNothingBack(t *testing.T) {
	g := newGraph()
	needs := func(name string) bool { return g.needs(ref{secrets, "shop", name}) }
	if !g.put(withSecret("1", "5", "new")) || !needs("new") {
		t.Fatal("a pod is not known")
	}
	if g.put(withSecret("1", "4", "old")) || needs("old") {
		t.Error("an older state of a pod counts")
	}
	if g.put(withSecret("1", "6", "new")) {
		t.Error("that nothing changed is news")
	}
	g.remove(withSecret("2", "7", "new"))
	if !needs("new") {
		t.Error("the deletion of one pod removes another")
	}
	g.remove(withSecret("1", "8", "new"))
	if needs("new") || !g.wasThere("shop", "web") || g.pod("shop", "web") != nil {
		t.Error("a pod that was deleted still needs something")
	}
	if g.putBeside(withSecret("1", "6", "new")) || needs("new") {
		t.Error("a list that was late brings a deleted pod back")
	}
	g.replace([]*corev1.Pod{withSecret("1", "6", "new"), withSecret("3", "9", "other")}, 9)
	if needs("new") || !needs("other") {
		t.Error("the list that comes after the watch brings a deleted pod back")
	}
	g.replace(nil, 10)
	if needs("other") {
		t.Error("a pod that is no more still needs something")
	}
}

// TestListThatIsOlderThanWhatIsKnownTakesNothingAway has a kubelet that was told of
// a pod be faster than a list that is under way.
func TestListThatIsOlderThanWhatIsKnownTakesNothingAway(t *testing.T) {
	g := newGraph()
	needs := func(name string) bool { return g.needs(ref{secrets, "shop", name}) }
	g.put(withSecret("0", "50", "before"))
	g.putBeside(withSecret("1", "101", "s"))
	g.replace([]*corev1.Pod{withSecret("0", "50", "before")}, 100)
	if !needs("s") || needs("before") {
		t.Fatal("a pod that is newer than the list is taken for one that is no more")
	}
	g.put(withSecret("1", "101", "s"))
	if !needs("s") {
		t.Error("the watch tells of it in vain")
	}
	g.putBeside(withSecret("1", "101", "s"))
	g.replace(nil, 99)
	if needs("s") {
		t.Error("a pod that the watch told of outlives an API server that went back in time")
	}
	g.putBeside(withSecret("2", "102", "s"))
	g.replace(nil, 102)
	if needs("s") || g.putBeside(withSecret("2", "102", "s")) {
		t.Error("a pod that is no more is still there")
	}
}
