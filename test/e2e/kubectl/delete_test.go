package kubectl

import "testing"

func TestDeletes(t *testing.T) {
	compareAll(t, map[string]func(*side){
		"foreground": deleteForeground,
		"background": deleteBackground,
		"orphan":     deleteOrphan,
		"collection": deleteCollection,
		"waits":      deleteWaits,
		"namespace":  deleteNamespace,
	})
}

func deleteForeground(s *side) {
	s.deployed()
	s.works("delete deployment web --cascade=foreground")
	s.works("get deployments,replicasets,pods")
}

func deleteBackground(s *side) {
	s.deployed()
	s.works("delete deployment web --cascade=background")
	s.works("get deployments")
	s.direct().works("wait --for=delete replicasets,pods --all --timeout=60s")
	s.works("get replicasets,pods")
}

func deleteOrphan(s *side) {
	s.deployed()
	s.works("delete deployment web --cascade=orphan")
	s.works("get replicasets -o custom-columns=NAME:.metadata.name,OWNERS:.metadata.ownerReferences")
	s.works("get pods --no-headers -o custom-columns=PHASE:.status.phase")
	s.works("delete replicasets --all --cascade=foreground")
}

func deleteCollection(s *side) {
	s.direct().in(configMaps).works("create -f -")
	s.works("delete configmaps -l app=web --dry-run=server")
	s.works("delete configmaps -l app=web")
	s.works("get configmaps -o name")
	s.works("delete configmaps --all")
	s.works("delete configmaps -l app=web")
	s.direct().in(configMaps).works("create -f -")
	s.works("delete --raw /api/v1/namespaces/" + s.namespace + "/configmaps?labelSelector=app")
	s.works("delete configmap nothing --ignore-not-found")
	s.fails("not found", "delete configmap nothing")
	s.fails("not found", "delete configmap web-c nothing")
}

func deleteWaits(s *side) {
	s.direct().in(held).works("create -f -")
	deleting := s.start("delete configmap web")
	deleting.expect("deleted")
	s.works("get configmap web -o jsonpath={.metadata.finalizers}")
	s.direct().works("patch configmap web --type=merge", "-p="+letGo)
	deleting.end()
	s.fails("not found", "get configmap web")

	s.direct().in(held).works("create -f -")
	s.works("delete configmap web --wait=false")
	s.works("delete configmap web --now --wait=false")
	waiting := s.start("wait --for=delete configmap/web -v=6")
	waiting.expectLog("watch=true")
	s.direct().works("patch configmap web --type=merge", "-p="+letGo)
	waiting.end()
}

func deleteNamespace(s *side) {
	s.direct().in(configMaps).works("create -f -")
	s.works("delete namespace " + s.namespace + " --timeout=60s")
	s.fails("not found", "get namespace "+s.namespace)
}
