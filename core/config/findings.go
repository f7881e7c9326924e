package config

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Conditions of policies.
const (
	// Accepted says whether proxies understood the policy.
	Accepted = "Accepted"
	// Compiled says whether a proxy could load and compile what it names.
	Compiled = "Compiled"
	// Programmed says whether a proxy has put it in force.
	Programmed = "Programmed"
	// Evaluated says whether what the policy has said of requests could be taken.
	Evaluated = "Evaluated"
	// ResourcesKnown says whether the API server has the resources that the policy
	// names. Its time is when the API server was asked.
	ResourcesKnown = "ResourcesKnown"
)

// Findings are what was found out about policies when they were put in force:
// conditions besides, or instead of, those that say that all is well. What is
// found about one policy leaves the others in force.
type Findings map[runtime.Object][]metav1.Condition

// Add notes conditions of a policy.
func (f Findings) Add(policy runtime.Object, conditions ...metav1.Condition) {
	f[policy] = append(f[policy], conditions...)
}

// IsCompiled is the condition of a policy of which something was compiled.
func IsCompiled(message string) metav1.Condition {
	return metav1.Condition{Type: Compiled, Status: metav1.ConditionTrue, Reason: "Compiled", Message: message}
}

// NotCompiled is the condition of a policy of which something could not be had
// or compiled.
func NotCompiled(reason, message string) metav1.Condition {
	return metav1.Condition{Type: Compiled, Status: metav1.ConditionFalse, Reason: reason, Message: message}
}

// NotInForce is the condition of a policy that is not, or not as it says.
func NotInForce(reason, message string) metav1.Condition {
	return metav1.Condition{Type: Programmed, Status: metav1.ConditionFalse, Reason: reason, Message: message}
}
