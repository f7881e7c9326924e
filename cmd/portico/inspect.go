package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/portico-proxy/portico/core/cache"
)

// streamsPath is where a proxy describes what it has in memory, on the port of
// its metrics.
const streamsPath = "/debug/streams"

// inspectTimeout bounds how long a proxy may take to describe itself.
const inspectTimeout = 10 * time.Second

func newInspectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect",
		Short: "Look into a running proxy, or into the kernel",
	}
	cmd.AddCommand(newInspectStreamsCommand(), newInspectTalkersCommand(), newInspectRedirectCommand())
	return cmd
}

func newInspectStreamsCommand() *cobra.Command {
	address := defaultProxyOptions().metricsAddress
	cmd := &cobra.Command{
		Use:   "streams",
		Short: "Show the collections that a proxy has in memory",
		Long: `Show the collections that a proxy has in memory: how many objects and bytes, how
much of their history, who is reading, which resourceVersion they have reached,
and how long ago the API server last proved that this is the newest, and how many
requests the API server has been spared (0 until more than to load them has cost).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			infos, err := fetchStreams(cmd, address)
			if err != nil {
				return err
			}
			return printStreams(cmd.OutOrStdout(), infos)
		},
	}
	cmd.Flags().StringVar(&address, "metrics-bind-address", address, "Where the proxy serves its metrics.")
	return cmd
}

// get asks a proxy to describe itself. The caller closes the answer's body.
func get(cmd *cobra.Command, address, path string) (*http.Response, error) {
	client := http.Client{Timeout: inspectTimeout}
	r, err := http.NewRequestWithContext(cmd.Context(), http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return nil, fmt.Errorf("read --metrics-bind-address: %w", err)
	}
	res, err := client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("ask the proxy (is --metrics-bind-address its own?): %w", err)
	}
	return res, nil
}

func fetchStreams(cmd *cobra.Command, address string) ([]cache.StreamInfo, error) {
	res, err := get(cmd, address, streamsPath)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("the proxy at %s keeps nothing in memory: it runs with --watch-cache=false", address)
	}
	var infos []cache.StreamInfo
	if err := json.NewDecoder(res.Body).Decode(&infos); err != nil {
		return nil, fmt.Errorf("read the streams of the proxy at %s: %w", address, err)
	}
	return infos, nil
}

func printStreams(out io.Writer, infos []cache.StreamInfo) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "GROUP\tVERSION\tRESOURCE\tFORMAT\tPART\tOBJECTS\tBYTES\tEVENTS\tEVENT-BYTES\tREADERS\tWATCHERS\tAPPLIED\tOLDEST\tAGE\tSAVED")
	for _, i := range infos {
		r := i.Resource
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t", cmp.Or(r.Group, "core"), r.Version, r.Resource, i.Format, cmp.Or(i.Scope, "all"))
		if !i.Loaded {
			fmt.Fprintf(w, "loading\t\t\t\t%d\t\t\t\t\t\n", i.Readers)
			continue
		}
		fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%d\n", i.Objects, i.Bytes, i.Events, i.EventBytes, i.Readers, i.Watchers,
			i.ResourceVersion, i.Oldest, i.Age.Round(time.Second), max(i.Saved, 0))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print streams: %w", err)
	}
	return nil
}

// describe answers what `portico inspect` prints.
func describe[T any](tell func() T) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		// The header is sent: a client that is gone is told nothing more.
		_ = json.NewEncoder(w).Encode(tell())
	})
}
