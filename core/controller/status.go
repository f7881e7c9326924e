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
)

// Conditions of policies.
const (
	// Accepted says whether proxies understood the policy.
	Accepted = "Accepted"
	// Programmed says whether a proxy has put it in force.
	Programmed = "Programmed"
)

// Reasons of conditions.
const (
	ReasonAccepted   = "Accepted"
	ReasonInvalid    = "Invalid"
	ReasonProgrammed = "InForce"
	ReasonRefused    = "Refused"
)

// unreported are the objects whose status does not say what it should.
func (c *Controller) unreported() []*unstructured.Unstructured {
	var all []*unstructured.Unstructured
	for name, u := range c.objects() {
		p := c.policies[name]
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
	accepted := metav1.Condition{Type: Accepted, Status: metav1.ConditionTrue, Reason: ReasonAccepted, Message: "Proxies understand it.", ObservedGeneration: p.generation}
	programmed := metav1.Condition{Type: Programmed, Status: metav1.ConditionTrue, Reason: ReasonProgrammed, Message: "It is in force; other proxies follow as soon as they hear of it.", ObservedGeneration: p.generation}
	switch {
	case p.err != nil:
		c.refuse(&accepted, ReasonInvalid, p.err.Error())
		c.refuse(&programmed, ReasonInvalid, "What the policy said before, if it did, stays in force.")
	case c.refusal != nil:
		c.refuse(&programmed, ReasonRefused, c.refusal.Error())
	}
	return []metav1.Condition{accepted, programmed}
}

// maxMessage is what a condition's message may have in bytes.
const maxMessage = 32768

func (c *Controller) refuse(to *metav1.Condition, reason, message string) {
	to.Status, to.Reason = metav1.ConditionFalse, reason
	end := c.signature()
	to.Message = strings.ToValidUTF8(message[:min(len(message), maxMessage-len(end))], "") + end
}

// signature tells refusals of this proxy from those of others.
func (c *Controller) signature() string { return fmt.Sprintf(" (%s)", c.By) }

// isNews reports whether want has to be written. Proxies of different versions
// may disagree. Then a refusal stands until the policy changes: somebody is to
// look at it. Only who refused can take it back.
func (c *Controller) isNews(conditions []metav1.Condition, want metav1.Condition) bool {
	is := meta.FindStatusCondition(conditions, want.Type)
	switch {
	case is == nil || is.ObservedGeneration < want.ObservedGeneration:
		return true
	case is.ObservedGeneration > want.ObservedGeneration || is.Status == want.Status:
		return false
	}
	return want.Status == metav1.ConditionFalse || strings.HasSuffix(is.Message, c.signature())
}

// report writes what nobody has written by now.
func (c *Controller) report(ctx context.Context) {
	for _, u := range c.unreported() {
		err := c.write(ctx, u)
		switch {
		case err == nil, ctx.Err() != nil, apierrors.IsConflict(err), apierrors.IsNotFound(err):
			// Somebody else was faster: there is an event on its way.
		case apierrors.IsForbidden(err):
			c.silent = true
			c.Log.Info("Status of policies is not written", "resource", c.Resource.GroupResource().String(), "reason", "the proxy's identity may not update it")
			return
		default:
			c.Log.V(1).Info("status of a policy was not written", "name", u.GetName(), "reason", err.Error())
			c.waiting = true
			c.due.Reset(c.Spread)
		}
	}
}

// write puts the verdict on u into its status.
func (c *Controller) write(ctx context.Context, u *unstructured.Unstructured) error {
	u = u.DeepCopy()
	conditions := conditionsOf(u)
	for _, want := range c.verdict(c.policies[u.GetName()]) {
		if c.isNews(conditions, want) {
			meta.SetStatusCondition(&conditions, want)
		}
	}
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
	_, err := c.Client.Resource(c.Resource).UpdateStatus(ctx, u, metav1.UpdateOptions{FieldManager: "portico"})
	return err
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
