package main

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

var errCases = errors.New("not all cases are as they should be")

func newFilterTestCommand() *cobra.Command {
	return tryCommand(&cobra.Command{
		Use:   "test",
		Short: "Check what a filter answers",
		Long: `Put the requests and objects of --cases to a module, as a proxy would, and compare
what it answers with what is wanted. In --cases, ` + whatCasesHave() + `.

A case of "phase: View" is about an object of an answer, and wants that it is dropped,
or the object as it is shown. With previous, what it was before (and without an object,
if it is deleted), it is one of a watch, and what is wanted has the event that the
watcher is sent. Fields are values by their JSON pointers in the object as it is left,
such as /metadata/labels/team; null is nothing. What is not wanted must not be.`,
	}, func(cmd *cobra.Command, t *trial) error {
		failed := false
		for i := range t.cases {
			c := &t.cases[i]
			if diff := c.failed(t.ask(cmd.Context(), c)); diff != "" {
				failed = true
				fmt.Fprintf(cmd.OutOrStdout(), "FAIL  %s (-want +got)\n%s\n", c.Name, diff)
				continue
			}
			fmt.Fprintf(cmd.OutOrStdout(), "ok    %s\n", c.Name)
		}
		if failed {
			return errCases
		}
		return nil
	})
}

func newFilterRunCommand() *cobra.Command {
	return tryCommand(&cobra.Command{
		Use:   "run",
		Short: "Show what a filter answers",
		Long: `Put the requests and objects of --cases to a module, as a proxy would, and show
what it answers, in the form that --cases wants it in.`,
	}, func(cmd *cobra.Command, t *trial) error {
		for i := range t.cases {
			answer := strings.ReplaceAll(described(t.ask(cmd.Context(), &t.cases[i])), "\n", "\n    ")
			fmt.Fprintf(cmd.OutOrStdout(), "- name: %s\n  want:\n    %s\n", t.cases[i].Name, answer)
		}
		return nil
	})
}

// benchTime is how long each case is measured.
const benchTime = time.Second

func newFilterBenchCommand() *cobra.Command {
	return tryCommand(&cobra.Command{
		Use:   "bench",
		Short: "Measure what a filter costs",
		Long: `Put each case to a module again and again for a second, and show how long an answer
takes and how much memory of the proxy it needs besides the module's own.`,
	}, func(cmd *cobra.Command, t *trial) error {
		for i := range t.cases {
			c, n := &t.cases[i], 0
			var before, after runtime.MemStats
			t.ask(cmd.Context(), c)
			runtime.ReadMemStats(&before)
			began := time.Now()
			for time.Since(began) < benchTime && cmd.Context().Err() == nil {
				if got := t.ask(cmd.Context(), c); got.Error != "" {
					return fmt.Errorf("%s: %s", c.Name, got.Error)
				}
				n++
			}
			took := time.Since(began)
			runtime.ReadMemStats(&after)
			fmt.Fprintf(cmd.OutOrStdout(), "%10.2f µs  %6d B  %s\n", float64(took.Microseconds())/float64(n), (after.TotalAlloc-before.TotalAlloc)/uint64(n), c.Name)
		}
		return nil
	})
}

// tryCommand gives a command its flags, and do a module that was loaded.
func tryCommand(cmd *cobra.Command, do func(*cobra.Command, *trial) error) *cobra.Command {
	o := tried{}
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		t, err := o.begin(cmd.Context(), cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		return errors.Join(do(cmd, t), t.end(cmd.Context()))
	}
	o.addFlags(cmd)
	return cmd
}
