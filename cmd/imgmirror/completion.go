package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/cmd/imgmirror/man"
	"imgmirror/cmd/imgmirror/table"
)

func newCompletionCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "completion {bash|zsh|fish}",
		Short: "Print the completion script of a shell",
		Long: "Prints the script that teaches a shell to complete imgmirror's command lines:\n\n" +
			"  bash:  source <(imgmirror completion bash)\n" +
			"  zsh:   imgmirror completion zsh > \"${fpath[1]}/_imgmirror\"\n" +
			"  fish:  imgmirror completion fish | source",
		ValidArgs: []string{"bash", "zsh", "fish"},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 || cobra.OnlyValidArgs(cmd, args) != nil {
				return failure.Usage("want bash, zsh or fish")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			root, out := cmd.Root(), cmd.OutOrStdout()
			switch args[0] {
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			}
			return root.GenBashCompletionV2(out, true)
		},
	}
}

// newManCmd is for packagers.
func newManCmd() *cobra.Command {
	return &cobra.Command{
		Use:    "man FOLDER",
		Short:  "Write the manual pages imgmirror(8), one of each verb, and imgmirror.yaml(5) to a folder",
		Hidden: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return failure.Usage("want one folder")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return man.Write(args[0], newRootCmd(), version) },
	}
}

// completeLimit is how long a shell's user may have to wait.
const completeLimit = 2 * time.Second

// choice is a word that an argument can be completed to, and what a person knows it by.
type choice struct{ word, about string }

// completeFrom completes an argument to a word that list gives. Only a mirror that runs on the data
// folder is asked: a data folder takes too long to open for a key press, and so do sources to answer.
func completeFrom(list func(context.Context, *session) ([]choice, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		const none = cobra.ShellCompDirectiveNoFileComp
		cfg, err := loadConfig(cmd)
		if err != nil {
			return nil, none
		}
		ctx := cmd.Context()
		if ctx == nil { // so cobra does it
			ctx = context.Background()
		}
		ctx, cancel := context.WithTimeout(ctx, completeLimit)
		defer cancel()
		s, err := connectSocket(ctx, cfg)
		if s == nil || err != nil {
			return nil, none
		}
		defer s.close() //nolint:errcheck // drops idle connections
		all, err := list(ctx, s)
		if err != nil {
			return nil, none
		}
		var found []string
		for _, c := range all {
			if strings.HasPrefix(c.word, typed) {
				found = append(found, cobra.CompletionWithDesc(c.word, table.Printable(c.about)))
			}
		}
		return found, none
	}
}

// offered are the images of the catalogue.
func offered(ctx context.Context, s *session) ([]choice, error) {
	images, err := s.Images(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := imageRows(images)
	if err != nil {
		return nil, err
	}
	all := make([]choice, len(rows))
	for i, r := range rows {
		all[i] = choice{r.m.UUID, r.m.Name + "@" + r.m.Version}
	}
	return all, nil
}

// onDisk are the images whose files are on disk.
func onDisk(ctx context.Context, s *session) ([]choice, error) {
	cached, err := s.Cached(ctx)
	all := make([]choice, len(cached))
	for i, c := range cached {
		all[i] = choice{c.UUID, c.Name + "@" + c.Version}
	}
	return all, err
}

// sourceNames are the sources.
func sourceNames(ctx context.Context, s *session) ([]choice, error) {
	sources, err := s.Sources(ctx)
	all := make([]choice, len(sources))
	for i, source := range sources {
		all[i] = choice{source.Name, source.URL}
	}
	return all, err
}
