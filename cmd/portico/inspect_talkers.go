package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/portico-proxy/portico/core/talkers"
)

// talkersPath is where a proxy tells who costs what, on the port of its metrics.
const talkersPath = "/debug/talkers"

func newInspectTalkersCommand() *cobra.Command {
	address := defaultProxyOptions().metricsAddress
	total, rows := false, 20
	cmd := &cobra.Command{
		Use:   "talkers",
		Short: "Show who costs what",
		Long: `Show what callers have asked a proxy for in the last minute, those first that
cost most.

The proxy only knows who is calling where it has to: for reads that memory may
answer, and for requests that a policy is bound to. Other callers are told apart
by what they call themselves, and have - for a name.

QUORUM are lists of a whole resource at its newest version, INITIAL lists and
watches that began anew, SHORT watches that ended within five seconds, NOOP writes
that changed nothing, EXPIRED answers of 410 and 504.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if rows < 0 {
				return fmt.Errorf("--rows=%d is less than none: give how many rows to show", rows)
			}
			all, err := fetchTalkers(cmd, address)
			if err != nil {
				return err
			}
			return printTalkers(cmd.OutOrStdout(), all[:min(len(all), rows)], total)
		},
	}
	cmd.Flags().StringVar(&address, "metrics-bind-address", address, "Where the proxy serves its metrics.")
	cmd.Flags().BoolVar(&total, "total", total, "Show what was asked for since the proxy began.")
	cmd.Flags().IntVar(&rows, "rows", rows, "How many rows to show.")
	return cmd
}

func fetchTalkers(cmd *cobra.Command, address string) ([]talkers.Talker, error) {
	res, err := get(cmd, address, talkersPath)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the proxy at %s keeps no account of its callers (%s): is it as new as this program?", address, res.Status)
	}
	var all []talkers.Talker
	if err := json.NewDecoder(res.Body).Decode(&all); err != nil {
		return nil, fmt.Errorf("read the talkers of the proxy at %s: %w", address, err)
	}
	return all, nil
}

func printTalkers(out io.Writer, all []talkers.Talker, total bool) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "USER\tAGENT\tGROUP\tRESOURCE\tREQUESTS\tLISTS\tQUORUM\tINITIAL\tLIST-BYTES\tSLOW\tWATCHES\tSHORT\tWRITES\tNOOP\tCONFLICTS\tEXPIRED\tTHROTTLED\tERRORS")
	for i := range all {
		t := &all[i]
		c := &t.Minute
		if total {
			c = &t.Total
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n",
			cmp.Or(t.User, "-"), cmp.Or(t.Agent, "-"), cmp.Or(t.Group, "core"), t.Resource, c.Requests, c.Lists, c.QuorumLists, c.InitialReads,
			c.ListBytes, c.SlowReads, c.WatchStarts, c.ShortWatches, c.Writes, c.NoopWrites, c.Conflicts, c.Expired, c.Throttled, c.Errors)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print talkers: %w", err)
	}
	return nil
}
