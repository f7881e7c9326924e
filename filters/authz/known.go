package authz

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

const (
	// maxDecisions and maxBefore bound how many decisions are remembered, to be used
	// and for the time that nobody can be asked. longestBefore is for how long the
	// latter are.
	maxDecisions  = 16 << 10
	maxBefore     = 16 << 10
	longestBefore = time.Hour
)

// question is what the API server is asked, hashed: a caller chooses how long its
// selectors are.
type question [sha256.Size]byte

// known is what has been decided since decisions were last forgotten.
type known struct {
	decisions *cache.LRUExpireCache
	// before is when something was last allowed, for the time that the API server
	// cannot be asked and a policy lets reads be stale.
	before *cache.LRUExpireCache
	clock
}

// clock is a [cache.Clock].
type clock func() time.Time

func (c clock) Now() time.Time { return c() }

func newKnown(now clock) *known {
	return &known{
		decisions: cache.NewLRUExpireCacheWithClock(maxDecisions, now),
		before:    cache.NewLRUExpireCacheWithClock(maxBefore, now),
		clock:     now,
	}
}

func (k *known) decision(q question) (authorizer.Decision, bool) {
	kept, ok := k.decisions.Get(q)
	decision, is := kept.(authorizer.Decision)
	return decision, ok && is
}

func (k *known) decided(q question, d authorizer.Decision) { k.decisions.Add(q, d, decisionTTL) }

func (k *known) note(q question) { k.before.Add(q, k.Now(), longestBefore) }
func (k *known) drop(q question) { k.before.Remove(q) }

func (k *known) allowed(q question, within time.Duration) bool {
	kept, ok := k.before.Get(q)
	at, is := kept.(time.Time)
	return ok && is && k.Now().Sub(at) <= within
}

// questionOf is equal for what is asked of the API server in the same words, and for
// nothing else: of all that a review tells, each text follows its length.
func questionOf(a authorizer.Attributes) question {
	key := appendUser(make([]byte, 0, 512), a.GetUser())
	for _, text := range []string{
		a.GetVerb(), a.GetAPIGroup(), a.GetAPIVersion(), a.GetResource(), a.GetSubresource(), a.GetNamespace(), a.GetName(), a.GetPath(),
	} {
		key = appendText(key, text)
	}
	if a.IsResourceRequest() {
		key = append(key, 'r')
	}
	fields, err := a.GetFieldSelector()
	key = appendError(binary.AppendUvarint(key, uint64(len(fields))), err)
	for _, f := range fields {
		key = appendTexts(appendText(key, string(f.Operator)), []string{f.Field, f.Value})
	}
	labels, err := a.GetLabelSelector()
	key = appendError(binary.AppendUvarint(key, uint64(len(labels))), err)
	for _, l := range labels {
		key = appendText(key, l.String())
	}
	return sha256.Sum256(key)
}

func appendUser(key []byte, u user.Info) []byte {
	key = appendTexts(appendText(appendText(key, u.GetName()), u.GetUID()), u.GetGroups())
	extra := u.GetExtra()
	key = binary.AppendUvarint(key, uint64(len(extra)))
	for _, name := range slices.Sorted(maps.Keys(extra)) {
		key = appendTexts(appendText(key, name), extra[name])
	}
	return key
}

func appendText(key []byte, text string) []byte {
	return append(binary.AppendUvarint(key, uint64(len(text))), text...)
}

func appendTexts(key []byte, texts []string) []byte {
	key = binary.AppendUvarint(key, uint64(len(texts)))
	for _, t := range texts {
		key = appendText(key, t)
	}
	return key
}

func appendError(key []byte, err error) []byte {
	if err == nil {
		return append(key, 0)
	}
	return appendText(append(key, 1), err.Error())
}
