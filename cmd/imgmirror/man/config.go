package man

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"imgmirror/config"
)

// configPage is imgmirror.yaml(5) in the form that cobra's writer takes.
func configPage() (*cobra.Command, error) {
	defaults := config.Defaults()
	text, err := defaults.YAML()
	if err != nil {
		return nil, err
	}
	var values map[string]any
	if err := yaml.Unmarshal(text, &values); err != nil {
		return nil, err
	}
	var b strings.Builder
	b.WriteString("The file is YAML, at " + config.DefaultFile + ` or where --config says. Keys that are left out keep their
defaults; unknown ones are errors. Sizes are written like 500GB or 64MiB, durations like 20s, 10m, 24h or 7d.
"imgmirror config check" tells everything that is wrong at once, "imgmirror config show" prints what is in effect.

Each key may also come from the environment, under the name given with it; lists as JSON or with commas between
their values. An empty variable counts as not set, two quotes ("") set the empty text. Options on the command
line win over the environment, the environment over the file.

A filter is FIELD=VALUE, FIELD=~SUBSTRING or FIELD!=VALUE, with the fields uuid, name, version, os, type, state,
owner, public, origin, published_at, description and tag.KEY. Secrets are named by file and never printed.

# KEYS
`)
	for key, help := range config.Help() {
		if !strings.Contains(key, "[].") { // an entry's key has no default and no variable of its own
			help += ". Default: " + defaultText(values, key) + ". (" + config.EnvName(key) + ")"
		}
		fmt.Fprintf(&b, "**%s**\n: %s\n\n", key, strings.ReplaceAll(help, "*", `\*`))
	}
	b.WriteString("# DEFAULTS\nWhat runs without any file:\n\n```\n" + string(text) + "```\n\n# SEE ALSO\n**imgmirror(8)**\n")
	page := &cobra.Command{Use: "imgmirror.yaml", Short: "Configuration of imgmirror", Long: b.String(), DisableAutoGenTag: true}
	page.Flags().Bool("help", false, "") // in the place of cobra's own: a file has no options
	return page, page.Flags().MarkHidden("help")
}

// defaultText is the value of key, "section.name", in values.
func defaultText(values map[string]any, key string) string {
	section, name, found := strings.Cut(key, ".")
	v := values[section]
	if sub, ok := v.(map[string]any); ok && found {
		v = sub[name]
	}
	switch v := v.(type) {
	case string:
		if v == "" {
			return "empty"
		}
		return v
	case []any:
		if len(v) == 0 {
			return "none"
		}
		return "as in DEFAULTS"
	}
	return fmt.Sprint(v)
}
