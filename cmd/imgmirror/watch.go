package main

import (
	"bytes"
	"context"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/cmd/imgmirror/progress"
	"imgmirror/cmd/imgmirror/table"
)

// watchEvery is how often a verb with -w asks its mirror.
const watchEvery = time.Second

// withRunning is withSession for what only a mirror that runs can tell or do.
func withRunning(cmd *cobra.Command, do func(context.Context, *session) error) error {
	s, cfg, err := connectRunning(cmd)
	if err != nil {
		return err
	}
	if s == nil {
		return failure.New("NotRunning", "no mirror runs on %s (--data-dir, or --server for a mirror elsewhere)", cfg.DataDir)
	}
	defer s.close() //nolint:errcheck // drops idle connections
	return do(cmd.Context(), s)
}

// addWatchFlag adds the option -w.
func addWatchFlag(cmd *cobra.Command, watch *bool, what string) {
	cmd.Flags().BoolVarP(watch, "watch", "w", false, what)
}

// printRows prints the rows that ask gives: once, or with watch whenever the rows have changed, until
// the operator's Ctrl-C, which is the usual end. With watch and -j each change is one line.
func printRows[T any](ctx context.Context, cmd *cobra.Command, out table.Layout[T], watch bool, ask func(context.Context) ([]T, error)) error {
	if !watch {
		rows, err := ask(ctx)
		if err != nil {
			return err
		}
		return out.Print(cmd.OutOrStdout(), rows)
	}
	return follow(ctx, cmd, func(ctx context.Context) (string, bool, error) {
		rows, err := ask(ctx)
		if err != nil {
			return "", false, err
		}
		text, err := textOf(out, rows)
		return text, false, err
	})
}

// follow shows the text that ask gives, again and again until ask says that it is the last one, or the
// operator's Ctrl-C, which is no failure.
func follow(ctx context.Context, cmd *cobra.Command, ask func(context.Context) (text string, last bool, err error)) error {
	screen := progress.NewScreen(cmd.OutOrStdout())
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		text, last, err := ask(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if err := screen.Show(text); err != nil || last {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// textOf is rows as -w shows them: a table, or a line of JSON.
func textOf[T any](out table.Layout[T], rows []T) (string, error) {
	if out.JSON {
		return jsonLine(rows)
	}
	var b bytes.Buffer
	err := out.Print(&b, rows)
	return b.String(), err
}

// jsonLine is v as one line of JSON.
func jsonLine(v any) (string, error) {
	data, err := json.Marshal(v, table.AsSent)
	return string(data) + "\n", err
}
