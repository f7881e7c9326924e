package wire

import (
	"bytes"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	codecs "k8s.io/apimachinery/pkg/runtime/serializer"
)

// statusCodecs knows Status and nothing else.
var statusCodecs = func() codecs.CodecFactory {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	return codecs.NewCodecFactory(scheme)
}()

// StatusEvent is the frame of an ERROR event that says why a watch ends.
func StatusEvent(f Format, why apierrors.APIStatus) ([]byte, error) {
	status := why.Status()
	info, _ := runtime.SerializerInfoForMediaType(statusCodecs.SupportedMediaTypes(), f.MediaType())
	encoded, err := runtime.Encode(statusCodecs.EncoderForVersion(info.Serializer, schema.GroupVersion{Version: "v1"}), &status)
	if err != nil {
		return nil, fmt.Errorf("encode status: %w", err)
	}
	return ErrorEvent(f, bytes.TrimSuffix(encoded, []byte("\n"))), nil
}
