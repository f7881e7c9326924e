package authz

import (
	"crypto/sha256"
	"encoding/json"
	"time"

	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

const (
	// maxBefore bounds how many decisions are remembered, and longestBefore for how
	// long.
	maxBefore     = 16 << 10
	longestBefore = time.Hour
)

// before remembers when something was last allowed, for the time that the API server
// cannot be asked and a policy lets reads be stale.
type before struct {
	decisions *cache.LRUExpireCache
	now       func() time.Time
}

func newBefore() *before {
	return &before{decisions: cache.NewLRUExpireCache(maxBefore), now: time.Now}
}

func (b *before) note(a authorizer.Attributes) { b.decisions.Add(keyOf(a), b.now(), longestBefore) }
func (b *before) drop(a authorizer.Attributes) { b.decisions.Remove(keyOf(a)) }

func (b *before) allowed(a authorizer.Attributes, within time.Duration) bool {
	kept, ok := b.decisions.Get(keyOf(a))
	at, is := kept.(time.Time)
	return ok && is && b.now().Sub(at) <= within
}

// keyOf is equal for what is asked of the API server in the same words.
func keyOf(a authorizer.Attributes) [sha256.Size]byte {
	fields, fieldsErr := a.GetFieldSelector()
	labels, labelsErr := a.GetLabelSelector()
	u := a.GetUser()
	text, err := json.Marshal([]any{
		u.GetName(), u.GetUID(), u.GetGroups(), u.GetExtra(), a.GetVerb(), a.GetAPIGroup(), a.GetAPIVersion(), a.GetResource(),
		a.GetSubresource(), a.GetNamespace(), a.GetName(), a.GetPath(), fields, errText(fieldsErr), labels, errText(labelsErr),
	})
	if err != nil {
		panic(err) // strings always marshal
	}
	return sha256.Sum256(text)
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
