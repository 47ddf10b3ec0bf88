package main

import (
	"context"

	"github.com/spf13/cobra"

	"imgmirror/proxy/admin"
)

func newVerifyCmd() *cobra.Command {
	var quiet, asJSON bool
	cmd := &cobra.Command{
		Use:   "verify [UUID|FILTER]...",
		Short: "Hash what is on disk again, now",
		Long: "Reads the files of images, of all cached ones when none is named, and compares them with their sums.\n" +
			"A wrong file is moved to the quarantine folder; it, or one that is gone, is fetched again from a\n" +
			"source that has it. When there is none, the verb fails.\n\n" + filterHelp,
		Args: func(_ *cobra.Command, args []string) error {
			_, err := readWanted(args)
			return err
		},
		ValidArgsFunction: completeUUIDs(onDisk),
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print failures only")
	cmd.Flags().BoolVarP(&asJSON, "json", "j", false, "print JSON: the job at its end")
	addServerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		wanted, err := readWanted(args)
		if err != nil {
			return err
		}
		return withSession(cmd, needFiles, func(ctx context.Context, s *session) error {
			job, err := s.Verify(ctx, wanted)
			if err != nil {
				return err
			}
			return following{
				session: s, quiet: quiet, json: asJSON,
				done: map[string]string{admin.JobDone: "ok", admin.ItemHealed: "was wrong, healed", admin.ItemRestored: "was gone, brought anew"},
			}.follow(ctx, cmd, job)
		})
	}
	return cmd
}
