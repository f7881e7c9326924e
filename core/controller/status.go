package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/portico-proxy/portico/core/config"
)

// Reasons of conditions.
const (
	ReasonAccepted   = "Accepted"
	ReasonInvalid    = "Invalid"
	ReasonProgrammed = "InForce"
	ReasonRefused    = "Refused"
)

// unreported are the objects whose status does not say what it should, unless
// this proxy may not write it.
func (c *Controller) unreported(k *kind) []*unstructured.Unstructured {
	if k.silent {
		return nil
	}
	var all []*unstructured.Unstructured
	for name, u := range k.objects() {
		p := k.policies[name]
		if p == nil || p.generation != u.GetGeneration() {
			continue // it is read before it is judged
		}
		conditions := conditionsOf(u)
		if slices.ContainsFunc(c.verdict(p), func(w metav1.Condition) bool { return c.isNews(conditions, w) }) {
			all = append(all, u)
		}
	}
	return all
}

// verdict is what this proxy has to say of p.
func (c *Controller) verdict(p *policy) []metav1.Condition {
	accepted := metav1.Condition{Type: config.Accepted, Status: metav1.ConditionTrue, Reason: ReasonAccepted, Message: "Proxies understand it."}
	programmed := metav1.Condition{Type: config.Programmed, Status: metav1.ConditionTrue, Reason: ReasonProgrammed, Message: "It is in force; other proxies follow as soon as they hear of it."}
	verdict := []metav1.Condition{accepted, programmed}
	switch {
	case p.err != nil:
		before := "What the policy said before stays in force."
		if p.good == nil {
			before = "There is nothing in force of it."
		}
		refuse(&verdict[0], ReasonInvalid, p.err.Error()+". "+before)
		refuse(&verdict[1], ReasonInvalid, before)
	case c.refusal != nil:
		refuse(&verdict[1], ReasonRefused, c.refusal.Error())
	default:
		for _, found := range c.Found(p.good) {
			meta.SetStatusCondition(&verdict, found)
		}
	}
	for i := range verdict {
		c.sign(&verdict[i], p.generation)
	}
	return verdict
}

// isDated reports conditions that tell what was so at a time. Who has looked last is right.
func isDated(c *metav1.Condition) bool { return c.Type == config.ResourcesKnown }

// maxMessage is what a condition's message may have in bytes.
const maxMessage = 32768

func refuse(to *metav1.Condition, reason, message string) {
	to.Status, to.Reason, to.Message = metav1.ConditionFalse, reason, message
}

// sign makes a condition one of this proxy, about a generation.
func (c *Controller) sign(to *metav1.Condition, generation int64) {
	to.ObservedGeneration = generation
	if isDated(to) {
		return
	}
	to.LastTransitionTime = metav1.Time{}
	if to.Status == metav1.ConditionFalse {
		end := c.signature()
		to.Message = strings.ToValidUTF8(to.Message[:min(len(to.Message), maxMessage-len(end))], "") + end
	}
}

// signature tells refusals of this proxy from those of others.
func (c *Controller) signature() string { return fmt.Sprintf(" (%s)", c.By) }

// isNews reports whether want has to be written. Proxies of different versions
// may disagree. Then a refusal stands until the policy changes: somebody is to
// look at it. Only who refused can take it back, or give another reason: a file
// that is there by now may be a bad one.
func (c *Controller) isNews(conditions []metav1.Condition, want metav1.Condition) bool {
	is := meta.FindStatusCondition(conditions, want.Type)
	switch {
	case is == nil || is.ObservedGeneration < want.ObservedGeneration:
		return true
	case is.ObservedGeneration > want.ObservedGeneration:
		return false
	case is.Status == want.Status:
		return want.Status == metav1.ConditionFalse && is.Message != want.Message && c.signed(is)
	case isDated(&want):
		return want.LastTransitionTime.After(is.LastTransitionTime.Time)
	}
	return want.Status == metav1.ConditionFalse || c.signed(is)
}

// signed reports a refusal of this proxy.
func (c *Controller) signed(is *metav1.Condition) bool {
	return strings.HasSuffix(is.Message, c.signature())
}

// report writes what nobody has written by now.
func (c *Controller) report(ctx context.Context) {
	for _, k := range c.kinds {
		for _, u := range c.unreported(k) {
			c.handle(ctx, k, u, c.write(ctx, k, u))
		}
	}
}

// handle decides what becomes of a status that was written, or was not.
func (c *Controller) handle(ctx context.Context, k *kind, u *unstructured.Unstructured, err error) {
	switch {
	case err == nil, ctx.Err() != nil, apierrors.IsConflict(err), apierrors.IsNotFound(err):
		// Somebody else was faster: there is an event on its way.
	case apierrors.IsForbidden(err):
		if !k.silent {
			c.Log.Info("Status of policies is not written", "resource", k.resource.GroupResource().String(), "reason", "the proxy's identity may not update it")
		}
		k.silent = true
	default:
		c.Log.V(1).Info("status of a policy was not written", "name", u.GetName(), "reason", err.Error())
		c.waiting = true
		c.due.Reset(c.Spread)
	}
}

// write puts the verdict on u into its status.
func (c *Controller) write(ctx context.Context, k *kind, u *unstructured.Unstructured) error {
	u = u.DeepCopy()
	conditions := conditionsOf(u)
	for _, want := range c.verdict(k.policies[u.GetName()]) {
		if c.isNews(conditions, want) {
			meta.SetStatusCondition(&conditions, want)
		}
	}
	slices.SortStableFunc(conditions, func(a, b metav1.Condition) int { return rank(a.Type) - rank(b.Type) })
	raw := make([]any, 0, len(conditions))
	for i := range conditions {
		one, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&conditions[i])
		if err != nil {
			return fmt.Errorf("write condition: %w", err)
		}
		raw = append(raw, one)
	}
	if err := unstructured.SetNestedSlice(u.Object, raw, "status", "conditions"); err != nil {
		return fmt.Errorf("write conditions: %w", err)
	}
	_, err := c.Client.Resource(k.resource).UpdateStatus(ctx, u, metav1.UpdateOptions{FieldManager: "portico"})
	return err
}

// rank puts causes before effects: the first refusal is what there is to mend.
func rank(condition string) int {
	return slices.Index([]string{config.Accepted, config.Compiled, config.Programmed, config.Evaluated, config.ResourcesKnown}, condition)
}

// conditionsOf reads u's conditions. What cannot be read is not there.
func conditionsOf(u *unstructured.Unstructured) []metav1.Condition {
	var status struct {
		Conditions []metav1.Condition `json:"conditions"`
	}
	raw, _, _ := unstructured.NestedMap(u.Object, "status")
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(raw, &status); err != nil {
		return nil
	}
	return status.Conditions
}
