package storage

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apiserver/pkg/apis/example"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
)

// The suite's objects are pods in all but name, down to the numbers of their
// protobuf fields, so they are served as the pods of the core group: then what
// the cache knows about pods holds for them.
var (
	groupVersion = schema.GroupVersion{Version: "v1"}
	internal     = schema.GroupVersion{Version: runtime.APIVersionInternal}

	scheme = newScheme()
	codecs = serializer.NewCodecFactory(scheme)

	storageCodec = func() runtime.Codec {
		s := protobuf.NewSerializer(scheme, scheme)
		return codecs.CodecForVersions(s, s, groupVersion, internal)
	}()
)

func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	s.AddKnownTypes(internal, &example.Pod{}, &example.PodList{})
	s.AddKnownTypes(groupVersion, &examplev1.Pod{}, &examplev1.PodList{})
	metav1.AddToGroupVersion(s, groupVersion)
	for _, err := range []error{
		examplev1.RegisterConversions(s),
		metav1.AddMetaToScheme(s),
		s.AddFieldLabelConversionFunc(groupVersion.WithKind("Pod"), selectable),
	} {
		if err != nil {
			panic(err)
		}
	}
	return s
}

// selectable refuses what objects cannot be selected by.
func selectable(field, value string) (string, string, error) {
	switch field {
	case "metadata.name", "metadata.namespace", "spec.nodeName", "spec.restartPolicy", "status.phase":
		return field, value, nil
	}
	return "", "", fmt.Errorf("field label not supported: %s", field)
}
