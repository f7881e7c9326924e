package kubectl

// Objects that stories are about.
const (
	configMap = `
apiVersion: v1
kind: ConfigMap
metadata:
  name: web
  labels: {app: web}
data:
  greeting: hello
`
	configMaps = configMap + `
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: web-b
  labels: {app: web}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: web-c
`
	service = `
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  selector: {app: web}
  ports: [{port: 80}]
`
	pod = `
apiVersion: v1
kind: Pod
metadata:
  name: web
  labels: {app: web}
spec:
  containers: [{name: web, image: example.org/web}]
`
	deployment = `
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: example.org/web}]
`
	// held is not gone when it is deleted.
	held = `
apiVersion: v1
kind: ConfigMap
metadata:
  name: web
  finalizers: [example.org/hold]
`
	letGo = `{"metadata":{"finalizers":null}}`
)

// running makes a pod that runs.
func (s *side) running() {
	s.t.Helper()
	d := s.direct()
	d.in(pod).works("create -f -")
	d.works("wait --for=condition=Ready pod/web --timeout=60s")
}

// manned makes a pod that runs on a node that kwok does not play.
func (s *side) manned(node string) {
	s.t.Helper()
	d := s.direct()
	d.in(pod + "  nodeName: " + node + "\n").works("create -f -")
	d.works("patch pod web --subresource=status --type=merge", `-p={"status":{"phase":"Running"}}`)
}

// deployed makes a Deployment whose pods run.
func (s *side) deployed() {
	s.t.Helper()
	d := s.direct()
	d.in(deployment).works("create -f -")
	d.works("rollout status deployment/web --timeout=60s")
}
