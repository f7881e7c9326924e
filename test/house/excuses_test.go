package house

// excuses names what may be bigger than the rules allow, and why: a file by its
// path, a function by path:Name or path:Type.Name, a flag of others by path:--name.
var excuses = map[string]string{
	"RATIONALE.md:--etcd-servers-overrides": "the flag is kube-apiserver's",

	"test/e2e/kubectl/kubelet_test.go:kubelet.AttachContainer": "the interface is k8s.io/cri-streaming's",
	"test/e2e/kubectl/kubelet_test.go:kubelet.ExecInContainer": "the interface is k8s.io/cri-streaming's",
}
