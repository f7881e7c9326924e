// Command portico puts a Kubernetes API server within reach of every node.
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	ctrl "sigs.k8s.io/controller-runtime"
)

func main() {
	// The first signal drains, the second ends at once.
	if err := newCommand().ExecuteContext(ctrl.SetupSignalHandler()); err != nil {
		// One line, whatever a parser quotes.
		fmt.Fprintln(os.Stderr, "portico:", strings.Join(strings.Fields(err.Error()), " "))
		os.Exit(1)
	}
}

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "portico",
		Short: "A Kubernetes API server within reach of every node",
		Long: `Portico is a proxy in front of a Kubernetes API server that any client can be
pointed at without noticing. Run one on every node, or one for an area.

Begin with "portico dev": it starts a control plane of its own if you have none,
and a proxy in front of it.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version(),
	}
	root.AddCommand(newProxyCommand(), newRedirectCommand(), newDevCommand(), newFilterCommand(), newPolicyCommand(), newInspectCommand())
	return root
}
