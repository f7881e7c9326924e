package kubectl

import (
	"strings"
	"testing"
)

func TestRefusals(t *testing.T) {
	compareAll(t, map[string]func(*side){
		"forbidden": forbidden,
		"invalid":   invalid,
		"strict":    strict,
		"warned":    warned,
		"rights":    rights,
		"strangers": strangers,
	})
}

func forbidden(s *side) {
	s.direct().in(configMap).works("create -f -")
	s = s.as(ann)
	s.fails("Error from server (Forbidden)", "get configmaps")
	s.fails("Error from server (Forbidden)", "get configmap web -o yaml")
	s.fails("forbidden", "get configmaps -w")
	s.fails("forbidden", "get nodes")
	s.in(configMap).fails("forbidden", "create -f -")
	s.in(configMap).fails("forbidden", "apply -f -")
	s.fails("forbidden", "delete configmap web")
	s.fails("forbidden", "delete configmaps --all")
	s.fails("forbidden", "patch configmap web", "-p={}")
	s.fails("forbidden", "exec web -- true")
	s.fails("forbidden", "logs web")
	s.fails("forbidden", "get configmaps --as=admin")
	s.fails("forbidden", "get --raw /metrics")
	s.works("get --raw /version")
}

func invalid(s *side) {
	s.in(strings.ReplaceAll(pod, "image: example.org/web", "image: ''")).fails("Required value", "create -f -")
	s.in(strings.ReplaceAll(pod, "name: web", "name: _")).fails("Invalid value", "create -f -")
	s.in(strings.ReplaceAll(deployment, "replicas: 2", "replicas: -2")).fails("must be greater than or equal to 0", "apply -f - --server-side")
	s.in(strings.ReplaceAll(deployment, "replicas: 2", "replicas: many")).fails("", "create -f - --validate=false")
	s.in("{").fails("", "create --raw /api/v1/namespaces/"+s.namespace+"/configmaps -f -")
	s.in(`{"kind":"Nonsense","apiVersion":"v1"}`).fails("", "create --raw /api/v1/namespaces/"+s.namespace+"/configmaps -f -")
	s.in(strings.ReplaceAll(configMap, "v1", "example.org/v1")).fails("no matches for kind", "create -f -")
	s.direct().works("create quota made --hard=configmaps=0")
	s.direct().works("wait --for=jsonpath={.status.hard.configmaps}=0 resourcequota/made")
	s.in(configMap).fails("exceeded quota", "create -f -")
}

func strict(s *side) {
	unknown := configMap + "nonsense: true\n"
	s.in(unknown).fails(`unknown field "nonsense"`, "create -f - --validate=strict")
	s.in(unknown).fails(`unknown field "nonsense"`, "apply -f - --validate=strict")
	s.in(unknown).works("apply -f - --validate=warn") // carries a warning
	s.in(unknown).works("apply -f - --validate=ignore")
	s.in(unknown).fails("nonsense", "apply -f - --server-side --force-conflicts")
	twice := strings.ReplaceAll(configMap, "  greeting: hello", "  greeting: hello\n  greeting: hello")
	s.in(twice).fails("", "create -f - --dry-run=server")
}

func warned(s *side) {
	s.direct().works("label namespace " + s.namespace + " pod-security.kubernetes.io/warn=restricted")
	s.in(pod).works("apply -f - --dry-run=server")
	s.in(deployment).works("apply -f - --dry-run=server")
	s.in(pod).fails("warning", "create -f - --dry-run=server --warnings-as-errors")
	s.works("get endpoints")
}

func rights(s *side) {
	s.works("auth whoami")
	s.works("auth whoami -o yaml")
	s.works("auth can-i create pods")
	s.works("auth can-i --list")
	a := s.as(ann)
	a.works("auth whoami -o json")
	a.fails("no", "auth can-i create pods")
	a.works("auth can-i create selfsubjectaccessreviews.authorization.k8s.io --all-namespaces")
	a.works("auth can-i --list")
	s.direct().works("create rolebinding readers --clusterrole=view --user=" + ann)
	a.works("auth can-i list pods")
	a.works("auth can-i --list")
	a.works("get configmaps -o name")
	s.works("auth can-i create pods --as=" + ann + " --subresource=exec --as-group=system:masters")
	s.works("auth whoami --as=" + ann + " --as-group=devs --as-uid=7 --as-user-extra=a=b")
}

// strangers have no token that the API server knows, and no memory of what
// others have discovered there.
func strangers(s *side) {
	s = s.with("KUBECACHEDIR=" + s.t.TempDir())
	s.fails("You must be logged in", "get pods --token=wrong")
	s.fails("Unauthorized", "auth whoami --token=wrong")
	s.fails("Unauthorized", "get --raw /version --token=wrong")
}
