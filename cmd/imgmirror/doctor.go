package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/cmd/imgmirror/table"
	"imgmirror/config"
	"imgmirror/proxy/admin"
)

// States of a finding.
const (
	findingOK      = "ok"
	findingWarning = "warning"
	findingFailed  = "failed"
)

var findingTable = table.New("state,check,message",
	table.Field("state", func(f admin.Finding) any { return f.State }),
	table.Field("check", func(f admin.Finding) any { return f.Check }),
	table.Field("message", func(f admin.Finding) any { return f.Message }),
)

func newDoctorCmd() *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check the set-up as imgadm would meet it",
		Long: "Checks each source (ping, list, a manifest, a file, its certificate, its clock), proxy variables, disk\n" +
			"room, file limits and what nodes will meet, and prints the command that a node needs. The mirror that\n" +
			"runs on the data folder is asked to check itself; when none runs, the configuration is checked.\n" +
			"The exit code is 1 if a check failed; warnings do not count.",
		Args: noArgs,
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print warnings and failures only")
	addServerFlags(cmd)
	addServeFlags(cmd)
	flags := findingTable.Flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		out, err := findingTable.Layout(flags)
		if err != nil {
			return err
		}
		findings, err := examine(cmd)
		if err != nil {
			return err
		}
		failed := 0
		for _, f := range findings {
			if f.State == findingFailed {
				failed++
			}
		}
		if quiet {
			findings = slices.DeleteFunc(findings, func(f admin.Finding) bool { return f.State == findingOK })
		}
		if err := out.Print(cmd.OutOrStdout(), findings); err != nil {
			return err
		}
		if failed > 0 {
			return failure.New("ChecksFailed", "%d of the checks failed", failed)
		}
		return nil
	}
	return cmd
}

// examine has a running mirror check itself, or checks the configuration.
func examine(cmd *cobra.Command) ([]admin.Finding, error) {
	s, cfg, err := connectRunning(cmd)
	switch {
	case err != nil && failure.Of(err).Code == failure.CodeConfig:
		return []admin.Finding{{Check: "configuration", State: findingFailed, Message: err.Error()}}, nil
	case err != nil:
		return nil, err
	case s != nil:
		defer s.close() //nolint:errcheck // drops idle connections
		return s.Doctor(cmd.Context())
	}
	return diagnose(cmd.Context(), cfg, "", ""), nil
}

// diagnose checks everything, sources side by side, within diagnoseLimit.
// serving is the address of the client listener of the mirror that runs with
// cfg, "" when none does, and id is what other mirrors know that mirror by.
func diagnose(ctx context.Context, cfg *config.Config, serving, id string) []admin.Finding {
	ctx, cancel := context.WithTimeout(ctx, diagnoseLimit)
	defer cancel()
	d := &doctor{cfg: cfg, serving: serving, id: id}
	d.configuration()
	d.sources(ctx)
	d.proxies()
	d.disk()
	d.fileLimit()
	d.pool(ctx)
	d.nodes(ctx)
	return d.findings
}

// doctor collects findings.
type doctor struct {
	cfg      *config.Config
	serving  string
	id       string
	findings []admin.Finding
}

func (d *doctor) ok(check, format string, args ...any) {
	d.findings = append(d.findings, finding(check, findingOK, format, args...))
}

func (d *doctor) warn(check, format string, args ...any) {
	d.findings = append(d.findings, finding(check, findingWarning, format, args...))
}

func (d *doctor) fail(check, format string, args ...any) {
	d.findings = append(d.findings, finding(check, findingFailed, format, args...))
}
