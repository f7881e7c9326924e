package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/portico-proxy/portico/core/redirect"
	"github.com/portico-proxy/portico/crds/balancing/v1beta1"
)

// reportInterval bounds how often one node writes. Only what has changed is
// written.
const reportInterval = time.Second

// maxReportedNodes bounds a policy's status, and with it what its writers cost
// each other. Nodes beyond it are told by their metrics.
const maxReportedNodes = 500

// A reporter says in the status of policies what this node makes of them.
type reporter struct {
	agent *agent
	log   logr.Logger
}

func newReporter(a *agent) *reporter {
	return &reporter{agent: a, log: a.log.WithName("status")}
}

func (r *reporter) run(ctx context.Context) error {
	c, err := client.New(r.agent.watcher.cfg, client.Options{Scheme: r.agent.watcher.scheme})
	if err != nil {
		return fmt.Errorf("report status: %w", err)
	}
	ticker := time.NewTicker(reportInterval)
	defer ticker.Stop()
	failed := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		d := r.agent.decision.Load()
		if d == nil {
			continue
		}
		failed = r.report(ctx, c, d.Policies, failed)
	}
}

// report writes what differs. A policy that another node has just written is left
// for the next time.
func (r *reporter) report(ctx context.Context, c client.Client, results []redirect.PolicyResult, failed string) string {
	for _, result := range results {
		err := write(ctx, c, result, r.agent.options.nodeName)
		if err == nil || ctx.Err() != nil || apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			continue
		}
		if err.Error() != failed {
			r.log.Error(err, "Status is not up to date", "policy", result.Policy.GetName())
		}
		failed = err.Error()
	}
	return failed
}

func write(ctx context.Context, c client.Client, result redirect.PolicyResult, node string) error {
	switch p := result.Policy.(type) {
	case *v1beta1.LocalRedirectPolicy:
		changed := p.DeepCopy()
		if tell(&changed.Status, result, node); equality.Semantic.DeepEqual(changed.Status, p.Status) {
			return nil
		}
		return c.Status().Update(ctx, changed)
	case *v1beta1.BalancingPolicy:
		changed := p.DeepCopy()
		if tell(&changed.Status, result, node); equality.Semantic.DeepEqual(changed.Status, p.Status) {
			return nil
		}
		return c.Status().Update(ctx, changed)
	}
	return nil
}

// tell puts one node's result into a policy's status.
func tell(s *v1beta1.PolicyStatus, result redirect.PolicyResult, node string) {
	generation := result.Policy.GetGeneration()
	own := v1beta1.NodeStatus{
		Name: node, ObservedGeneration: generation,
		Frontends: int32(result.Frontends), Backends: int32(result.Backends), Reason: result.Reason,
	}
	i := slices.IndexFunc(s.Nodes, func(n v1beta1.NodeStatus) bool { return n.Name == node })
	switch {
	case i >= 0 && !result.Holds:
		s.Nodes = slices.Delete(s.Nodes, i, i+1)
	case i >= 0:
		s.Nodes[i] = own
	case result.Holds && len(s.Nodes) < maxReportedNodes:
		s.Nodes = append(s.Nodes, own)
	}
	s.ActiveNodes, s.ActiveBackends = 0, 0
	for _, n := range s.Nodes {
		if n.Backends > 0 {
			s.ActiveNodes++
			s.ActiveBackends += n.Backends
		}
	}
	conclude(s, result, generation)
}

func conclude(s *v1beta1.PolicyStatus, result redirect.PolicyResult, generation int64) {
	accepted := metav1.Condition{
		Type: v1beta1.ConditionAccepted, Status: metav1.ConditionTrue, Reason: v1beta1.ReasonAccepted,
		Message: "The policy is kept where it holds.", ObservedGeneration: generation,
	}
	if !result.Accepted {
		accepted.Status, accepted.Reason, accepted.Message = metav1.ConditionFalse, result.Reason, result.Message
	}
	active := metav1.Condition{
		Type: v1beta1.ConditionActive, Status: metav1.ConditionTrue, Reason: v1beta1.ReasonRedirecting,
		Message: "Connections are redirected.", ObservedGeneration: generation,
	}
	if s.ActiveNodes == 0 {
		active.Status, active.Reason = metav1.ConditionFalse, v1beta1.ReasonNoBackend
		active.Message = "No node that the policy holds for has a backend that answers."
	}
	meta.SetStatusCondition(&s.Conditions, accepted)
	meta.SetStatusCondition(&s.Conditions, active)
}
