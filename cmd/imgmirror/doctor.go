package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/doctor"
	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/cmd/imgmirror/memory"
	"imgmirror/cmd/imgmirror/table"
	"imgmirror/config"
	"imgmirror/proxy/admin"
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
	findingTable.Run(cmd, func(cmd *cobra.Command, _ []string, out table.Layout[admin.Finding]) error {
		findings, err := examine(cmd)
		if err != nil {
			return err
		}
		failed := 0
		for _, f := range findings {
			if f.State == doctor.Failed {
				failed++
			}
		}
		if quiet {
			findings = slices.DeleteFunc(findings, func(f admin.Finding) bool { return f.State == doctor.OK })
		}
		if err := out.Print(cmd.OutOrStdout(), findings); err != nil {
			return err
		}
		if failed > 0 {
			return failure.New("ChecksFailed", "%d of the checks failed", failed)
		}
		return nil
	})
	return cmd
}

// examine has a running mirror check itself, or checks the configuration.
func examine(cmd *cobra.Command) ([]admin.Finding, error) {
	s, cfg, err := connectRunning(cmd)
	switch {
	case err != nil && failure.Of(err).Code == failure.CodeConfig:
		return []admin.Finding{{Check: "configuration", State: doctor.Failed, Message: err.Error()}}, nil
	case err != nil:
		return nil, err
	case s != nil:
		defer s.close() //nolint:errcheck // drops idle connections
		return s.Doctor(cmd.Context())
	}
	return diagnose(cmd.Context(), cfg, "", nil), nil
}

// diagnose checks the set-up of cfg, and the mirror that runs with cfg and that id, if one does.
func diagnose(ctx context.Context, cfg *config.Config, id string, running *doctor.Running) []admin.Finding {
	o := doctor.Options{Config: cfg, Sources: make([]doctor.Source, len(cfg.Sources)), ZFS: zfsOptions(cfg), Version: version, Running: running}
	o.Memory = memoryOf(cfg, memory.Find(int64(cfg.Memory.Limit)), memory.Machine())
	for i, s := range cfg.Sources {
		source, err := newSource(cfg, s)
		if err == nil {
			o.Sources[i].Client, err = source.Client(id, version, nil, slog.New(slog.DiscardHandler))
		}
		o.Sources[i].Err = err
	}
	return doctor.Examine(ctx, o)
}

// healthcheckTimeout is well under what container engines allow a check.
const healthcheckTimeout = 3 * time.Second

// newHealthcheckCmd is for container engines: a static image has no curl. It asks the admin
// listener of the mirror that runs with the same configuration whether it is ready.
func newHealthcheckCmd() *cobra.Command {
	return &cobra.Command{
		Use:    "healthcheck",
		Short:  "Exit 0 if the mirror on this machine is ready",
		Hidden: true,
		Args:   noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			if cfg.Admin.Listen == "" {
				return fmt.Errorf("admin.listen is empty: there is nothing to ask")
			}
			return askReady(cmd.Context(), cfg.Admin.Listen)
		},
	}
}

func askReady(ctx context.Context, listen string) error {
	ctx, cancel := context.WithTimeout(ctx, healthcheckTimeout)
	defer cancel()
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("admin.listen %q: %w", listen, err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	url := "http://" + net.JoinHostPort(host, port) + "/readyz"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return nil
}
