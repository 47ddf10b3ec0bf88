package main

import (
	"fmt"

	"github.com/dustin/go-humanize/english"
	"github.com/spf13/cobra"
)

func newConfigCmd() *cobra.Command {
	show := &cobra.Command{
		Use:   "show",
		Short: "Print every setting in force, as YAML",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			text, err := cfg.YAML()
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
	check := &cobra.Command{
		Use:   "check",
		Short: "Tell all faults of the configuration, or that there are none",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			for _, w := range cfg.Warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning: "+w)
			}
			from := "defaults, environment and flags"
			if cfg.File != "" {
				from = cfg.File
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: ok, %s\n", from, english.Plural(len(cfg.Sources), "source", ""))
			return err
		},
	}
	addServeFlags(show)
	addServeFlags(check)
	return verbGroup("config", "Show or check the configuration", show, check)
}
