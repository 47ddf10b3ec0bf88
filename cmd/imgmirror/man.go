package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"imgmirror/cmd/imgmirror/failure"
)

// newManCmd is for packagers: the pages are made of the commands and of the
// configuration's keys, so they are those of the version at hand.
func newManCmd() *cobra.Command {
	pages := []struct {
		name  string
		write func(w io.Writer, root *cobra.Command) error
	}{
		{"imgmirror.8", commandPage},
		{"imgmirror.yaml.5", configPage},
	}
	return &cobra.Command{
		Use:    "man FOLDER",
		Short:  "Write the manual pages imgmirror(8) and imgmirror.yaml(5) to a folder",
		Hidden: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return failure.Usage("want one folder")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, p := range pages {
				var b bytes.Buffer
				if err := p.write(&b, cmd.Root()); err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(args[0], p.name), b.Bytes(), 0o644); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// manWriter writes man(7), the macros that every system's man has. Its methods
// escape what they are given.
type manWriter struct {
	bytes.Buffer
}

// escape makes text that the formatter prints as it is.
func escape(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", "...").Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}

func (m *manWriter) title(name string, section int) {
	fmt.Fprintf(m, ".TH %s %d \"\" \"imgmirror %s\"\n", strings.ToUpper(escape(name)), section, escape(version))
}

func (m *manWriter) section(name string)    { fmt.Fprintf(m, ".SH %s\n", escape(name)) }
func (m *manWriter) subsection(name string) { fmt.Fprintf(m, ".SS %s\n", escape(name)) }

// text writes paragraphs, which empty lines part; indented lines stay as they are.
func (m *manWriter) text(s string) {
	for paragraph := range strings.SplitSeq(strings.TrimSpace(s), "\n\n") {
		fmt.Fprintln(m, ".PP")
		verbatim := strings.HasPrefix(paragraph, "  ")
		if verbatim {
			fmt.Fprintln(m, ".nf")
		}
		for line := range strings.SplitSeq(paragraph, "\n") {
			fmt.Fprintln(m, escape(line))
		}
		if verbatim {
			fmt.Fprintln(m, ".fi")
		}
	}
}

// item writes a term and what it means.
func (m *manWriter) item(term, meaning string) {
	fmt.Fprintf(m, ".TP\n\\fB%s\\fR\n", escape(term))
	for line := range strings.SplitSeq(meaning, "\n") {
		fmt.Fprintln(m, escape(line))
	}
}

// commandPage writes imgmirror(8).
func commandPage(w io.Writer, root *cobra.Command) error {
	m := &manWriter{}
	m.title("imgmirror", 8)
	m.section("NAME")
	fmt.Fprintf(m, "imgmirror \\- %s\n", escape(lowerFirst(root.Short)))
	m.section("SYNOPSIS")
	fmt.Fprintln(m, "\\fBimgmirror\\fR [\\fB\\-\\-config\\fR \\fIFILE\\fR] [\\fB\\-\\-data\\-dir\\fR \\fIFOLDER\\fR] \\fIVERB\\fR [\\fIOPTION\\fR...] [\\fIARGUMENT\\fR...]")
	m.section("DESCRIPTION")
	m.text("imgmirror stands between the compute nodes of a data centre and their image servers. It merges the lists of\n" +
		"its sources, fetches the file of an image when a node first asks for it, checks it while it passes, keeps it,\n" +
		"and serves it from disk from then on. Nodes use it by\n\n  imgadm sources -a http://MIRROR:8080\n\n" +
		"A verb but serve asks the mirror that runs on the data folder, over the socket admin.sock in it. When none\n" +
		"runs, it opens the data folder itself. With --server it asks a mirror on another machine.")
	m.section("OPTIONS")
	m.flags(root.PersistentFlags())
	m.section("VERBS")
	m.commands(root)
	m.section("FILES")
	m.item("/etc/imgmirror/imgmirror.yaml", "the configuration, see imgmirror.yaml(5)")
	m.item("DATA/admin.sock", "where the verbs find a running mirror; who may open it may do everything")
	m.item("DATA/admin.token", "the token that the admin listener wants over TCP")
	m.section("ENVIRONMENT")
	m.item("IMGMIRROR_SECTION_KEY", "sets a key of the configuration, see imgmirror.yaml(5)")
	m.item("HTTP_PROXY, HTTPS_PROXY, NO_PROXY", "proxies to the sources, in either case")
	m.section("EXIT STATUS")
	m.item("0", "success")
	m.item("1", "failure; the message is on standard error, as imgmirror VERB: error (Code): message")
	m.item("2", "the command line makes no sense")
	m.item("95, 96", "of serve under SMF: a fatal error, a wrong configuration")
	m.section("SEE ALSO")
	fmt.Fprintln(m, "\\fBimgmirror.yaml\\fR(5), \\fBimgadm\\fR(8)")
	_, err := m.WriteTo(w)
	return err
}

// commands writes the verbs below c, in their order.
func (m *manWriter) commands(c *cobra.Command) {
	for _, sub := range c.Commands() {
		if sub.Hidden || sub.Name() == "help" {
			continue
		}
		if sub.HasSubCommands() {
			m.commands(sub)
			continue
		}
		m.subsection(strings.TrimSuffix(sub.UseLine(), " [flags]"))
		if sub.Long != "" {
			m.text(sub.Long)
		} else {
			m.text(sub.Short + ".")
		}
		m.flags(sub.LocalNonPersistentFlags())
	}
}

// flags writes options with what they do.
func (m *manWriter) flags(flags *pflag.FlagSet) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		term := "--" + f.Name
		if f.Shorthand != "" {
			term = "-" + f.Shorthand + ", " + term
		}
		if value != "" {
			term += " " + value
		}
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" {
			usage += " (default " + f.DefValue + ")"
		}
		m.item(term, usage)
	})
}

func lowerFirst(s string) string {
	return strings.ToLower(s[:1]) + s[1:]
}
