package house

// excuses names what may be bigger than the rules allow, and why: a file by its
// path, a function by path:Name or path:Type.Name.
var excuses = map[string]string{
	"test/e2e/kubectl/kubelet_test.go:kubelet.AttachContainer": "the interface is k8s.io/cri-streaming's",
	"test/e2e/kubectl/kubelet_test.go:kubelet.ExecInContainer": "the interface is k8s.io/cri-streaming's",
}
