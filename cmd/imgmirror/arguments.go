package main

import (
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/cmd/imgmirror/table"
	"imgmirror/manifest"
	"imgmirror/proxy/admin"
	"imgmirror/proxy/meaning"
)

// filterHelp explains filters to those who ask for help.
const filterHelp = `A filter is FIELD=VALUE, FIELD=~SUBSTRING or FIELD!=VALUE; of several, all must hold. Fields are
uuid, name, version, os, type, state, owner, public, origin, published_at, description and tag.KEY.`

// noArgs refuses positional arguments as a usage error.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return failure.Usage("unexpected argument %q", args[0])
	}
	return nil
}

// filterArgs is for verbs whose arguments are filters only.
func filterArgs(_ *cobra.Command, args []string) error {
	for _, a := range args {
		if _, err := manifest.ParseFilter(a); err != nil {
			field, _, _ := strings.Cut(a, "=")
			field = strings.TrimSuffix(field, "!")
			if near := table.Nearest(field, manifest.FilterFields()); near != "" && near != field {
				err = fmt.Errorf("%w: did you mean %q?", err, near)
			}
			return &failure.Error{Code: failure.CodeUsage, Err: err}
		}
	}
	return nil
}

// uuidArg is for verbs with one image as their argument, which goes to id.
func uuidArg(id *uuid.UUID) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) (err error) {
		if len(args) != 1 {
			return failure.Usage("want one UUID, not %d arguments", len(args))
		}
		*id, err = parseUUID(args[0])
		return err
	}
}

func parseUUID(s string) (uuid.UUID, error) {
	id, ok := manifest.ParseUUID(strings.ToLower(s))
	if !ok {
		return id, failure.Usage("%q is not a UUID", s)
	}
	return id, nil
}

// wantedArgs is for verbs that need at least one UUID or filter; all go to w.
func wantedArgs(w *admin.Wanted) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return failure.Usage("want UUIDs or filters")
		}
		return optionalArgs(w)(cmd, args)
	}
}

// optionalArgs is for verbs whose arguments are UUIDs, filters, both or none; all go to w.
func optionalArgs(w *admin.Wanted) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		for _, a := range args {
			if strings.Contains(a, "=") {
				if err := filterArgs(nil, []string{a}); err != nil {
					return err
				}
				w.Filters = append(w.Filters, a)
				continue
			}
			id, err := parseUUID(a)
			if err != nil {
				return err
			}
			w.UUIDs = append(w.UUIDs, id.String())
		}
		return nil
	}
}

// noMatch is the error of filters that match no row of a list, nil without filters. what is a row;
// among says which rows there were to match, "" = all.
func noMatch(what string, filters []string, among string) error {
	if len(filters) == 0 {
		return nil
	}
	return failure.New(meaning.NotFound, "no %s matches %s%s", what, strings.Join(filters, " and "), among)
}

// needFlags refuses a command line without flags that must be there.
func needFlags(cmd *cobra.Command, names ...string) error {
	for _, name := range names {
		if !cmd.Flags().Changed(name) {
			return failure.Usage("--%s is missing", name)
		}
	}
	return nil
}
