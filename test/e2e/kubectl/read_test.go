package kubectl

import "testing"

func TestReads(t *testing.T) {
	compareAll(t, map[string]func(*side){
		"tables":   readTables,
		"formats":  readFormats,
		"select":   readSelected,
		"describe": describe,
		"events":   events,
		"missing":  readMissing,
	})
}

func readTables(s *side) {
	s.running()
	s.direct().in(service + "---" + configMaps).works("create -f -")
	s.works("get pods")
	s.works("get pods -o wide")
	s.works("get pods,services,configmaps,serviceaccounts")
	s.works("get all")
	s.works("get pod/web service/web --show-kind")
	s.works("get configmaps --show-labels -L app")
	s.works("get configmaps --no-headers")
	s.works("get configmaps --chunk-size=1")
	s.works("get configmaps --sort-by=.metadata.creationTimestamp")
	s.works("get configmaps -o custom-columns=NAME:.metadata.name,DATA:.data.greeting")
	s.works("get leases")
	s.works("get componentstatus etcd-0") // carries a warning
}

func readFormats(s *side) {
	s.running()
	s.direct().in(configMaps).works("create -f -")
	for _, format := range []string{
		"yaml", "json", "name", "kyaml", "jsonpath={.status.phase}", "jsonpath-as-json={.spec}", "go-template={{.spec.nodeName}}",
	} {
		s.works("get pod web -o " + format)
	}
	s.works("get configmaps -o yaml")
	s.works("get configmaps -o json")
	s.works("get configmaps -o name")
	s.works("get configmap web -o yaml --show-managed-fields")
	s.works("get pod web --subresource=status -o yaml")
	s.works("get --raw /api/v1/namespaces/" + s.namespace + "/configmaps/web")
	s.works("get --raw /api/v1/namespaces/" + s.namespace + "/configmaps?labelSelector=app%3Dweb&limit=1&pretty=true")
}

func readSelected(s *side) {
	s.running()
	s.direct().in(configMaps).works("create -f -")
	s.works("get configmaps -l app=web")
	s.works("get configmaps -l app!=web")
	s.works("get configmaps --field-selector=metadata.name=web-b")
	s.works("get pods --field-selector=status.phase=Running,spec.nodeName=node-a")
	s.works("get pods --field-selector=status.phase=Pending")
	s.works("get pods -A --field-selector=metadata.namespace=" + s.namespace)
	s.fails("field label not supported", "get pods --field-selector=spec.nonsense=1")
	s.fails("Unable to find", "get pods -l (")
}

func describe(s *side) {
	s.deployed()
	s.direct().in(service + "---" + configMap).works("create -f -")
	s.works("describe deployment web")
	s.works("describe replicasets")
	s.works("describe service web --show-events=false")
	s.works("describe configmap web")
	s.works("describe configmaps")
	s.works("describe namespace " + s.namespace)
	s.works("describe pods")
	s.fails("not found", "describe pod nothing")
}

func events(s *side) {
	s.running()
	s.direct().works("wait event --all --for=create --timeout=60s")
	s.works("events")
	s.works("events --for=pod/web -o json")
	s.works("events --types=Warning")
	s.works("get events --field-selector=involvedObject.name=web")
}

func readMissing(s *side) {
	s.works("get pods")
	s.works("get pods -o json")
	s.works("get pod nothing --ignore-not-found")
	s.fails(`pods "nothing" not found`, "get pod nothing")
	s.fails(`pods "nothing" not found`, "get pod nothing -o yaml")
	s.fails(`doesn't have a resource type "nonsense"`, "get nonsense")
	s.fails("Error from server (NotFound)", "get --raw /apis/nonsense.example.org/v1")
	s.fails("not found", "logs nothing")
	s.fails("not found", "exec nothing -- true")
	s.fails("not found", "port-forward pod/nothing :80")
	s.fails("Metrics API not available", "top pods")
}
