package main

import (
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portico-proxy/portico/bpf"
)

// podCgroups finds the cgroups that a kubelet makes for its pods. They are told
// by their names, which have the pod's UID in them: "pod<uid>", or
// "<slice>-pod<uid>.slice" with underscores for dashes.
type podCgroups struct {
	root  string
	known map[types.UID]uint64
}

// of returns the numbers of the pods' cgroups, as far as there are any. Only if a
// pod is new does it look for them.
func (p *podCgroups) of(pods []*corev1.Pod) map[types.UID]uint64 {
	next := make(map[types.UID]uint64, len(pods))
	missing := map[types.UID]types.UID{}
	for _, pod := range pods {
		if id, ok := p.known[pod.UID]; ok {
			next[pod.UID] = id
		} else if pod.Status.Phase == corev1.PodRunning {
			missing[cgroupUID(pod)] = pod.UID
		}
	}
	if len(missing) > 0 {
		p.find(missing, next)
	}
	p.known = next
	return next
}

func (p *podCgroups) find(missing map[types.UID]types.UID, found map[types.UID]uint64) {
	_ = filepath.WalkDir(p.root, func(path string, d fs.DirEntry, err error) error {
		// Cgroups go away while one looks at them.
		if err != nil || !d.IsDir() {
			return nil //nolint:nilerr // what is gone is not looked for
		}
		uid, ok := podOf(d.Name())
		if !ok {
			return nil
		}
		if of, wanted := missing[uid]; wanted {
			if id, err := bpf.CgroupID(path); err == nil {
				found[of] = id
			}
		}
		return filepath.SkipDir // containers are below
	})
}

// cgroupUID is the UID that the kubelet knows a pod by: of a static pod, the API
// server only has a mirror with a UID of its own.
func cgroupUID(pod *corev1.Pod) types.UID {
	if uid := pod.Annotations["kubernetes.io/config.hash"]; uid != "" && pod.Annotations[corev1.MirrorPodAnnotationKey] != "" {
		return types.UID(uid)
	}
	return pod.UID
}

// podUID is how the API server makes UIDs, or the kubelet those of static pods.
var podUID = regexp.MustCompile(`^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$`)

func podOf(name string) (types.UID, bool) {
	name, isSlice := strings.CutSuffix(name, ".slice")
	before, uid, ok := strings.Cut(name, "pod")
	for strings.Contains(uid, "pod") { // kubepods-...-pod<uid>
		_, uid, _ = strings.Cut(uid, "pod")
	}
	if isSlice {
		uid = strings.ReplaceAll(uid, "_", "-")
	}
	if !ok || !isSlice && before != "" || !podUID.MatchString(uid) {
		return "", false
	}
	return types.UID(uid), true
}
