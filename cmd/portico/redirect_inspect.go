package main

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portico-proxy/portico/bpf"
)

// newInspectRedirectCommand is `portico inspect redirect`.
func newInspectRedirectCommand() *cobra.Command {
	var pins string
	cmd := &cobra.Command{
		Use:   "redirect [address:port]",
		Short: "Show what the kernel does with this node's connections",
		Long: `Show the table in the kernel: what becomes of which destination, because of what,
and how often it was named. It is read from the kernel, whether an agent runs or
not, and nothing is changed. With an address, show only what concerns it.`,
		Example: `  portico inspect redirect
  portico inspect redirect 10.96.0.1:443`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			report, err := bpf.Inspect(pins)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				printReport(cmd.OutOrStdout(), report)
				return nil
			}
			return explainAddress(cmd.OutOrStdout(), report, args[0])
		},
	}
	cmd.Flags().StringVar(&pins, "pin-path", bpf.DefaultPins, "Directory of the pins of portico redirect.")
	return cmd
}

func printReport(w io.Writer, r *bpf.Report) {
	fmt.Fprintf(w, "programs: %s\n", strings.Join(r.Attached, " "))
	printLease(w, r)
	for _, row := range r.Rows {
		printRow(w, row)
	}
	for _, c := range r.Affinity {
		owner, backend := names(r, c)
		fmt.Fprintf(w, "client %d keeps %s of %s, connected %v ago\n", c.Client, backend, owner, c.Age.Round(time.Millisecond))
	}
}

func printLease(w io.Writer, r *bpf.Report) {
	if r.Lease > 0 {
		fmt.Fprintf(w, "lease: %v more\n", r.Lease.Round(time.Millisecond))
		return
	}
	fmt.Fprintln(w, "lease: run out; policies do not count until an agent renews it")
}

func printRow(w io.Writer, row bpf.Row) {
	c := row.Counts
	fmt.Fprintf(w, "%s  by policy %d, by Service %d, refused %d, left alone %d (lease run out %d, client exempt %d)\n",
		row.Frontend, c.Policy, c.Service, c.Refused, c.Passed, c.Lapsed, c.Exempt)
	printEntry(w, row.Entry)
}

// names looks up the numbers of a choice.
func names(r *bpf.Report, c bpf.Choice) (owner, backend string) {
	owner, backend = "a policy or Service that is gone", "a backend that is gone"
	for _, row := range r.Rows {
		for _, l := range []*bpf.Layer{row.Entry.Policy, row.Entry.Service} {
			if l == nil || bpf.OwnerNumber(l.Owner) != c.Owner {
				continue
			}
			owner = l.Owner
			for _, b := range l.Backends {
				if bpf.BackendNumber(b) == c.Backend {
					backend = b.String()
				}
			}
		}
	}
	return owner, backend
}

// explainAddress says what becomes of one destination, for both protocols.
func explainAddress(w io.Writer, r *bpf.Report, text string) error {
	address, err := netip.ParseAddrPort(text)
	if err != nil {
		return fmt.Errorf("%q is no address with a port, like 10.96.0.1:443 or [fd00::1]:443", text)
	}
	address = netip.AddrPortFrom(address.Addr().Unmap(), address.Port())
	found := false
	for _, row := range r.Rows {
		if row.Frontend.AddrPort == address {
			found = true
			printRow(w, row)
			fmt.Fprintf(w, "  now: %s\n", verdict(r, row.Entry))
		}
	}
	if !found {
		fmt.Fprintf(w, "%s is not in the table: connections go there as they are\n", address)
	}
	return nil
}

// verdict is what would happen to a client at this moment that no policy exempts.
func verdict(r *bpf.Report, e bpf.Entry) string {
	if l := e.Policy; l != nil {
		switch {
		case !l.Leased || r.Lease > 0:
			return backends(l) + ", because of " + l.Owner
		case l.Strict:
			return "refused, because the lease of " + l.Owner + " has run out, and it wants it so"
		}
	}
	if e.Service != nil {
		return backends(e.Service) + ", because of " + e.Service.Owner
	}
	return "the address itself: nobody here resolves Services, and no policy counts"
}
