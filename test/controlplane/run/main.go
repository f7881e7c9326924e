// Command run starts a control plane for a person and stops it on Ctrl-C:
//
//	go run ./test/controlplane/run
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/portico-proxy/portico/test/controlplane"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	apiServers := flag.Int("apiservers", 1, "number of kube-apiservers")
	nodes := flag.Int("nodes", 1, "number of nodes that kwok plays")
	dir := flag.String("dir", "", "directory for data, certificates and logs, which is kept (default: a temporary one)")
	only := flag.Bool("programs", false, "build the programs if need be, print the directory they are in, and start nothing")
	flag.Parse()
	if *only {
		dir, err := controlplane.Programs(ctx, controlplane.ProgramsOptions{Progress: os.Stderr})
		if err != nil {
			return err
		}
		fmt.Println(dir)
		return nil
	}

	cp, err := controlplane.Start(ctx, controlplane.Options{
		APIServers:        *apiServers,
		ControllerManager: true,
		Scheduler:         true,
		Kwok:              true,
		Dir:               *dir,
		Log:               os.Stdout,
	})
	if err != nil {
		return err
	}
	defer cp.Stop()
	for n := range *nodes {
		if err := cp.AddNode(ctx, fmt.Sprintf("node-%d", n)); err != nil {
			return err
		}
	}
	greet(cp)
	<-ctx.Done()
	fmt.Println("\nstopping")
	return nil
}

func greet(cp *controlplane.ControlPlane) {
	fmt.Printf("\nA control plane runs at %v. Its logs are in %s/logs. In another terminal:\n\n", cp.URLs(), cp.Dir())
	fmt.Printf("  export KUBECONFIG=%s\n", cp.KubeconfigPath())
	fmt.Printf("  alias kubectl=%s\n", cp.Program("kubectl"))
	fmt.Printf("  kubectl get nodes\n\nCtrl-C stops it.\n")
}
