package kubectl

import (
	"strings"
	"testing"
)

func TestWrites(t *testing.T) {
	compareAll(t, map[string]func(*side){
		"create":     create,
		"apply":      apply,
		"applied-by": applyServerSide,
		"patch":      patch,
		"edit":       edit,
		"replace":    replace,
		"annotate":   annotate,
		"scale":      scale,
		"rollout":    rollout,
		"wait":       await,
		"token":      token,
		"crd":        customResource,
	})
}

func create(s *side) {
	s.in(configMap).works("create -f - --dry-run=server -o yaml")
	s.in(configMap).works("create -f - --dry-run=client -o yaml")
	s.fails("not found", "get configmap web")
	s.in(configMap).works("create -f - -o yaml")
	s.in(configMap).fails("already exists", "create -f -")
	s.works("create configmap made --from-literal=a=b --save-config -o json")
	s.works("create secret generic made --from-literal=a=b -o yaml")
	s.works("create serviceaccount made")
	s.works("create role made --verb=get --resource=pods -o yaml")
	s.works("create rolebinding made --role=made --serviceaccount=" + s.namespace + ":made")
	s.works("create quota made --hard=secrets=1")
	s.works("create job made --image=example.org/web --dry-run=server -o name")
	s.works("create ingress made --rule=example.org/=web:80")
	s.works("create poddisruptionbudget made --selector=app=web --min-available=1")
	s.works("get configmaps,secrets,serviceaccounts,roles,rolebindings,ingresses,poddisruptionbudgets")
	s.works("run web --image=example.org/web --labels=app=web --dry-run=server -o yaml")
	s.in(service).works("create -f -")
	s.works("expose service web --name=more --port=81 -o name")
}

func apply(s *side) {
	changed := strings.ReplaceAll(configMaps, "hello", "good bye")
	s.in(configMaps).fails("+  greeting: hello", "diff -f -") // exit code 1: there are differences
	s.in(configMaps).works("apply -f - --dry-run=server")
	s.in(configMaps).works("apply -f -")
	s.in(configMaps).works("apply -f -")
	s.in(configMaps).works("diff -f -")
	s.in(changed).fails("-  greeting: hello", "diff -f -")
	s.in(changed).works("apply -f - -o yaml")
	s.works("apply view-last-applied configmap/web")
	s.in(configMap).works("apply -f - --prune -l app=web --prune-allowlist=core/v1/ConfigMap")
	s.works("get configmaps -o name")
	s.direct().works("create configmap made --from-literal=a=b")
	s.in(strings.ReplaceAll(configMap, "name: web", "name: made")).works("apply -f -") // carries a warning
}

func applyServerSide(s *side) {
	s.in(configMap).works("apply -f - --server-side -o yaml --show-managed-fields")
	s.in(configMap).works("apply -f - --server-side")
	other := strings.ReplaceAll(configMap, "hello", "good bye")
	s.in(other).fails(`conflict with "kubectl"`, "apply -f - --server-side --field-manager=other")
	s.in(other).fails("greeting: good bye", "diff -f - --server-side --field-manager=other --force-conflicts")
	s.in(other).works("apply -f - --server-side --field-manager=other --force-conflicts --dry-run=server")
	s.in(other).works("apply -f - --server-side --field-manager=other --force-conflicts")
	s.works("get configmap web -o yaml --show-managed-fields")
}

func patch(s *side) {
	s.direct().in(service).works("create -f -")
	s.works("patch service web --type=strategic", `-p={"spec":{"ports":[{"port":81,"name":"b"},{"port":80,"name":"a"}]}}`)
	s.works("get service web -o yaml")
	s.works("patch service web --type=merge", `-p={"metadata":{"labels":{"app":"web"}},"spec":{"selector":null}}`)
	s.works("get service web -o yaml")
	s.works("patch service web --type=json", `-p=[{"op":"replace","path":"/spec/ports/0/port","value":82}]`)
	s.fails("may only be used when", "patch service web --type=merge --subresource=status", `-p={"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"}]}}}`)
	s.works("patch service web --dry-run=server -o name", `-p={"metadata":{"labels":{"app":"none"}}}`)
	s.works("patch service web", `-p={}`)
	s.works("get service web -o yaml")
	s.fails("Invalid value", "patch service web", `-p={"spec":{"ports":[{"port":0,"name":"a"}]}}`)
	s.fails("the server rejected our request", "patch service web --type=json", `-p=[{"op":"remove","path":"/spec/nonsense"}]`)
	s.fails("not found", "patch service nothing", `-p={}`)
}

func edit(s *side) {
	s.direct().in(configMap).works("create -f -")
	s.with("KUBE_EDITOR=sed -i s/hello/bye/").works("edit configmap web")
	s.works("get configmap web -o yaml")
	s.with("KUBE_EDITOR=true").works("edit configmap web")
	s.with("KUBE_EDITOR=sed -i s/^kind:.*/kind:Nonsense/").fails("", "edit configmap web")
	// Refused by the API server, edited again to the same.
	s.with("KUBE_EDITOR=sed -i -e s/app:.web/app:_bad_/").fails("no valid changes", "edit configmap web")
}

func replace(s *side) {
	d := s.direct()
	d.in(configMap).works("create -f -")
	stale := d.works("get configmap web -o json")
	s.in(strings.ReplaceAll(stale, "hello", "good day")).works("replace -f -")
	s.in(strings.ReplaceAll(stale, "hello", "good bye")).fails("the object has been modified", "replace -f -")
	s.in(configMap).works("replace -f -")
	s.in(configMap).works("replace -f - --force")
	s.in(strings.ReplaceAll(configMap, "name: web", "name: nothing")).fails("not found", "replace -f -")
	s.works("get configmap web -o yaml")
}

func annotate(s *side) {
	s.direct().in(configMaps).works("create -f -")
	s.works("label configmap web tier=front")
	s.fails("--overwrite is false", "label configmap web tier=back")
	s.works("label configmap web tier=back --overwrite")
	s.works("label configmaps --all tier-")
	s.works("label configmaps -l app=web app=none --overwrite")
	s.works("annotate configmap web example.org/note=hi")
	s.works("annotate configmap web example.org/note-")
	s.works("label configmaps --list --all")
	s.fails("invalid label value", "label configmap web tier=_")
	s.works("get configmaps -o yaml")
}

func scale(s *side) {
	s.deployed()
	s.works("scale deployment web --replicas=3")
	s.direct().works("rollout status deployment/web --timeout=60s")
	s.works("get deployment web")
	s.works("get deployment web --subresource=scale")
	s.works("get --raw /apis/apps/v1/namespaces/" + s.namespace + "/deployments/web/scale")
	s.fails("Expected replicas to be 7", "scale deployment web --replicas=1 --current-replicas=7")
	s.works("autoscale deployment web --min=1 --max=3 -o name")
	s.works("get horizontalpodautoscaler web -o jsonpath={.spec}")
}

func rollout(s *side) {
	s.deployed()
	s.works("set image deployment/web web=example.org/web:2")
	s.direct().works("rollout status deployment/web --timeout=60s")
	s.works("rollout status deployment/web")
	s.works("rollout history deployment/web")
	s.works("rollout undo deployment/web")
	s.direct().works("rollout status deployment/web --timeout=60s")
	s.works("rollout pause deployment/web")
	s.works("set env deployment/web A=B")
	s.works("set resources deployment/web --limits=cpu=1")
	s.works("rollout resume deployment/web")
	s.direct().works("rollout status deployment/web --timeout=60s")
	s.works("get deployment web -o wide")
	s.works("get replicasets --sort-by=.metadata.name -o custom-columns=NAME:.metadata.name,IMAGE:.spec.template.spec.containers[0].image,WANT:.spec.replicas")
}

func await(s *side) {
	s.running()
	s.works("wait --for=condition=Ready pod/web")
	s.works("wait --for=condition=Ready pods --all")
	s.works("wait --for=jsonpath={.status.phase}=Running pod/web")
	s.works("wait --for=create pod/web")
	s.fails("timed out", "wait --for=condition=Nonsense pod/web --timeout=1s")
	s.fails("timed out", "wait --for=delete pod/web --timeout=1s")
	s.fails("not found", "wait --for=condition=Ready pod/nothing")
}

func token(s *side) {
	secret := s.works("create token default --duration=10m -o jsonpath={.status.nonsense}")
	if secret != "" {
		s.t.Errorf("there is something at .status.nonsense: %q", secret)
	}
	s.works("create token default --audience=example.org -o jsonpath={.spec.audiences}")
	s.fails("not found", "create token nobody")
}

// customResource defines a kind for each side: definitions have no namespace.
func customResource(s *side) {
	group := strings.ReplaceAll(s.namespace, "-", ".") + ".example.org"
	definition := strings.ReplaceAll(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: carts.GROUP}
spec:
  group: GROUP
  scope: Namespaced
  names: {kind: Cart, plural: carts, shortNames: [ct]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        description: A cart in a shop.
        type: object
        properties: {spec: {type: object, properties: {size: {type: integer, minimum: 1, description: How much is in it.}}}}
`, "GROUP", group)
	cart := strings.ReplaceAll("apiVersion: GROUP/v1\nkind: Cart\nmetadata: {name: web}\nspec: {size: 3}\n", "GROUP", group)
	s.in(definition).quiet("apply -f -")
	s.direct().works("wait --for=condition=Established --timeout=60s crd/carts." + group)
	s.in(cart).quiet("apply -f -")
	for _, line := range []string{
		"get carts.GROUP", "get carts.GROUP -o yaml", "get carts.GROUP web -o json", "describe carts.GROUP web", "explain carts.GROUP.spec",
		"api-resources --api-group=GROUP", "patch carts.GROUP web --type=merge -p={\"spec\":{\"size\":4}}",
		"delete carts.GROUP --all", "delete crd carts.GROUP",
	} {
		s.quiet(strings.ReplaceAll(line, "GROUP", group))
	}
}

// quiet is works for commands that name a side's own API group.
func (s *side) quiet(line string) {
	s.t.Helper()
	s.works(line)
	group := strings.ReplaceAll(s.namespace, "-", ".")
	last := &(*s.record)[len(*s.record)-1]
	for _, text := range []*string{&last.Command, &last.Stdout, &last.Stderr} {
		*text = strings.ReplaceAll(*text, group, "shop")
	}
}
