package main

import (
	"context"
	"errors"
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
	var events bool
	cmd := &cobra.Command{
		Use:   "redirect [address:port]",
		Short: "Show what the kernel does with this node's connections",
		Long: `Show the table in the kernel: what becomes of which destination, because of what,
and how often it was named. It is read from the kernel, whether an agent runs or
not, and nothing is changed. With an address, show only what concerns it.

With --events, show which process was led where, as it happens, as often as the
agent's --sample-events has it. Two that watch at once get some of the events each.`,
		Example: `  portico inspect redirect
  portico inspect redirect 10.96.0.1:443
  portico inspect redirect --events`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			report, err := bpf.Inspect(pins)
			if err != nil {
				return err
			}
			if events {
				return followEvents(cmd.Context(), cmd.OutOrStdout(), pins, report, args)
			}
			if len(args) == 0 {
				printReport(cmd.OutOrStdout(), report)
				return nil
			}
			return explainAddress(cmd.OutOrStdout(), report, args[0])
		},
	}
	cmd.Flags().StringVar(&pins, "pin-path", bpf.DefaultPins, "Directory of the pins of portico redirect.")
	cmd.Flags().BoolVar(&events, "events", events, "Show what becomes of connections as they are made, until interrupted.")
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
	address, err := parseFrontend(text)
	if err != nil {
		return err
	}
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

func parseFrontend(text string) (netip.AddrPort, error) {
	address, err := netip.ParseAddrPort(text)
	if err != nil {
		return address, fmt.Errorf("%q is no address with a port, like 10.96.0.1:443 or [fd00::1]:443", text)
	}
	return netip.AddrPortFrom(address.Addr().Unmap(), address.Port()), nil
}

// followEvents shows events until ctx ends: all, or those of one destination.
func followEvents(ctx context.Context, w io.Writer, pins string, r *bpf.Report, only []string) error {
	if r.Settings.Sample == 0 {
		return errors.New("there are no events: start the agent with --sample-events=1, or more if there are many connections")
	}
	var address netip.AddrPort
	if len(only) > 0 {
		var err error
		if address, err = parseFrontend(only[0]); err != nil {
			return err
		}
	}
	return bpf.Follow(ctx, pins, func(e bpf.Event) {
		if len(only) == 0 || e.Frontend.AddrPort == address {
			printEvent(w, e)
		}
	})
}

func printEvent(w io.Writer, e bpf.Event) {
	became := map[bpf.Verdict]string{
		bpf.ByPolicy: "by policy to " + e.Backend.AddrPort.String(), bpf.ByService: "by Service to " + e.Backend.AddrPort.String(),
		bpf.Refused: "refused", bpf.Passed: "left alone",
	}[e.Verdict]
	fmt.Fprintf(w, "%s  %s  %s, for %s (process %d, cgroup %d, network %d)\n",
		e.At.Format("15:04:05.000"), e.Frontend, became, e.Command, e.PID, e.Cgroup, e.Netns)
}
