package main

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/cmd/imgmirror/table"
	"imgmirror/proxy/admin"
)

// pageOfNodes is how many nodes are asked for at a time.
const pageOfNodes = 1000

// nodeTable shows nodes. The last four columns are of the image of --image.
var nodeTable = table.New("address,client,version,last,requests,images,bytes,saved,errors",
	table.Field("address", func(n admin.Node) any { return n.Address }),
	table.Field("client", func(n admin.Node) any { return n.Client }),
	table.Field("version", func(n admin.Node) any { return n.ClientVersion }),
	table.Field("platform", func(n admin.Node) any { return n.Platform }),
	table.Field("agent", func(n admin.Node) any { return n.Agent }),
	table.Field("first", func(n admin.Node) any { return n.FirstSeen }),
	table.Field("last", func(n admin.Node) any { return n.LastSeen }),
	table.Field("requests", func(n admin.Node) any { return int(n.Requests) }),
	table.Field("lists", func(n admin.Node) any { return int(n.Lists) }),
	table.Field("manifests", func(n admin.Node) any { return int(n.Manifests) }),
	table.Field("files", func(n admin.Node) any { return int(n.Files) }),
	table.Field("hits", func(n admin.Node) any { return int(n.Results["hit"]) }),
	table.Field("misses", func(n admin.Node) any { return int(n.Results["miss"]) }),
	table.Field("joins", func(n admin.Node) any { return int(n.Results["join"]) }),
	table.Field("bytes", func(n admin.Node) any { return table.Size(n.Served["hit"] + n.Served["miss"] + n.Served["join"]) }),
	table.Field("saved", func(n admin.Node) any { return table.Size(n.Saved) }),
	table.Field("rate", func(n admin.Node) any { return rateOf(n.Rate) }),
	table.Field("images", func(n admin.Node) any { return n.Images }),
	table.Field("forgotten", func(n admin.Node) any { return int(n.Forgotten) }),
	table.Field("errors", func(n admin.Node) any { return int(n.Errors) }),
	table.Field("fetched", func(n admin.Node) any { return fetchOf(n).When }),
	table.Field("result", func(n admin.Node) any { return fetchOf(n).Result }),
	table.Field("took", func(n admin.Node) any { return took(fetchOf(n)) }),
	table.Field("fetch_rate", func(n admin.Node) any { return rateOf(fetchOf(n).Rate) }),
)

const (
	// haveFields are the defaults with --image.
	haveFields = "address,client,version,fetched,result,took,fetch_rate"
	// nodeFetchFields are the defaults with an ADDRESS.
	nodeFetchFields = "uuid,name,version,when,result,bytes,took,rate,state"
)

// nodeFetchTable shows the images of one node.
var nodeFetchTable = table.New(nodeFetchFields,
	table.Field("uuid", func(f admin.NodeFetch) any { return f.UUID }),
	table.Field("name", func(f admin.NodeFetch) any { return f.Name }),
	table.Field("version", func(f admin.NodeFetch) any { return f.Version }),
	table.Field("when", func(f admin.NodeFetch) any { return f.When }),
	table.Field("result", func(f admin.NodeFetch) any { return f.Result }),
	table.Field("bytes", func(f admin.NodeFetch) any { return table.Size(f.Bytes) }),
	table.Field("took", func(f admin.NodeFetch) any { return took(f) }),
	table.Field("rate", func(f admin.NodeFetch) any { return rateOf(f.Rate) }),
	table.Field("state", func(f admin.NodeFetch) any { return fetchState(f) }),
	table.Field("fetches", func(f admin.NodeFetch) any { return int(f.Fetches) }),
)

func fetchOf(n admin.Node) admin.NodeFetch {
	if n.Fetch == nil {
		return admin.NodeFetch{Took: -1000, Rate: -1}
	}
	return *n.Fetch
}

// rateOf is a rate of the API, which is 0 where no time was measured.
func rateOf(r int64) table.Rate {
	if r == 0 {
		return -1
	}
	return table.Rate(r)
}

func took(f admin.NodeFetch) time.Duration { return time.Duration(f.Took) * time.Millisecond }

// fetchState is what a node has of an image: whole, part (of a file that is asked for in parts), or
// cut.
func fetchState(f admin.NodeFetch) string {
	switch {
	case f.Whole:
		return "whole"
	case f.Cut:
		return "cut"
	}
	return "part"
}

// nodeFilterFields are the fields of filters of nodes.
var nodeFilterFields = map[string]func(admin.Node) string{
	"address":  func(n admin.Node) string { return n.Address },
	"client":   func(n admin.Node) string { return n.Client },
	"version":  func(n admin.Node) string { return n.ClientVersion },
	"platform": func(n admin.Node) string { return n.Platform },
	"agent":    func(n admin.Node) string { return n.Agent },
}

// nodesAsked is what the command line asks for.
type nodesAsked struct {
	query   admin.NodeQuery
	address string // of one node; "" = of several
	filters []func(admin.Node) bool
	texts   []string // of filters
}

func newNodesCmd() *cobra.Command {
	var has, lacks string
	var forget bool
	var asked nodesAsked
	cmd := &cobra.Command{
		Use:   "nodes [ADDRESS|NETWORK] [FILTER...]",
		Short: "List the addresses that have asked, and what they got",
		Long: "Lists the nodes of the journal, the one that was seen last first: the client (imgadm's version is in its\n" +
			"user agent), the images and bytes that the node had, and the bytes that the mirror saved for the node.\n" +
			"With an ADDRESS: the last images of that node. With --image: the nodes that have had all of that image; with\n" +
			"--lacking: the nodes of the journal that have not. A NETWORK is written like 10.1.0.0/16.\n\n" +
			"--forget deletes what the journal knows of the ADDRESS; without an ADDRESS, the whole journal.\n\n" +
			"A filter is FIELD=VALUE, FIELD=~SUBSTRING or FIELD!=VALUE; of several, all must hold. Its fields are\n" +
			"address, client, version, platform and agent. Nodes behind one NAT, proxy or load balancer are one address.\n\n" +
			"Fields with an ADDRESS: " + nodeFetchFields + ",fetches.",
		Args: func(_ *cobra.Command, args []string) (err error) {
			asked, err = readNodeArgs(args)
			return err
		},
		ValidArgsFunction: completeFrom(someNodes),
	}
	cmd.Flags().StringVar(&has, "image", "", "only nodes that have had all of the image `UUID`")
	cmd.Flags().StringVar(&lacks, "lacking", "", "only nodes that have not had all of the image `UUID`")
	cmd.Flags().BoolVar(&forget, "forget", false, "delete the ADDRESS, or everything, from the journal")
	for _, name := range []string{"image", "lacking"} {
		if err := cmd.RegisterFlagCompletionFunc(name, completeFrom(onDisk)); err != nil {
			panic(err) // the flag is defined above
		}
	}
	quiet := addQuietFlag(cmd)
	addServerFlags(cmd)
	flags := nodeTable.Flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		for text, to := range map[*string]*string{&has: &asked.query.Image, &lacks: &asked.query.Lacks} {
			if *text == "" {
				continue
			}
			id, err := parseUUID(*text)
			if err != nil {
				return err
			}
			*to = id.String()
		}
		plain := has == "" && lacks == "" && len(asked.filters) == 0
		if forget {
			if !plain || asked.query.Address != "" {
				return failure.Usage("--forget takes an ADDRESS, or nothing")
			}
			return forgetNodes(cmd, asked.address, *quiet)
		}
		if asked.address != "" && !plain {
			return failure.Usage("an ADDRESS is one node: --image, --lacking and filters are for all nodes")
		}
		if asked.address != "" {
			return oneNode(cmd, flags, asked.address)
		}
		if has != "" && !cmd.Flags().Changed("output") {
			flags.Fields = haveFields
		}
		out, err := nodeTable.Layout(flags)
		if err != nil {
			return err
		}
		return withMatches(cmd, out, needFiles, noMatch("node", asked.texts, ""), func(ctx context.Context, s *session) ([]admin.Node, error) {
			return allNodes(ctx, s, cmd, asked, *quiet)
		})
	}
	return cmd
}

// readNodeArgs reads the positional arguments.
func readNodeArgs(args []string) (asked nodesAsked, err error) {
	for _, arg := range args {
		if strings.Contains(arg, "=") {
			filter, err := nodeFilter(arg)
			if err != nil {
				return asked, err
			}
			asked.filters, asked.texts = append(asked.filters, filter), append(asked.texts, arg)
			continue
		}
		if asked.address != "" || asked.query.Address != "" {
			return asked, failure.Usage("want one ADDRESS or NETWORK: %q is a second one", arg)
		}
		if _, err := netip.ParsePrefix(arg); err == nil {
			asked.query.Address = arg
			continue
		}
		address, err := netip.ParseAddr(arg)
		if err != nil {
			return asked, failure.Usage("%q is no IP address, no network such as 10.1.0.0/16, and no filter", arg)
		}
		asked.address = address.String()
	}
	return asked, nil
}

var nodeFilterForm = regexp.MustCompile(`(?s)^([a-z_]+)(=~|!=|=)(.*)$`)

// nodeFilter reads a filter of nodes.
func nodeFilter(text string) (func(admin.Node) bool, error) {
	parts := nodeFilterForm.FindStringSubmatch(text)
	if parts == nil {
		return nil, failure.Usage("%q is no filter: write FIELD=VALUE, FIELD=~SUBSTRING or FIELD!=VALUE", text)
	}
	field, value := nodeFilterFields[parts[1]], parts[3]
	if field == nil {
		names := []string{"address", "client", "version", "platform", "agent"}
		return nil, failure.Usage("%s (the fields of filters are %s)", table.Unknown("field", parts[1], names), strings.Join(names, ", "))
	}
	switch parts[2] {
	case "=~":
		return func(n admin.Node) bool { return strings.Contains(field(n), value) }, nil
	case "!=":
		return func(n admin.Node) bool { return field(n) != value }, nil
	}
	return func(n admin.Node) bool { return field(n) == value }, nil
}

// allNodes gives all nodes that are asked for.
func allNodes(ctx context.Context, s *session, cmd *cobra.Command, asked nodesAsked, quiet bool) ([]admin.Node, error) {
	q := asked.query
	q.Limit = pageOfNodes
	all := []admin.Node{}
	for {
		page, err := s.Nodes(ctx, q)
		if err != nil {
			return nil, err
		}
		if !page.On && !quiet {
			fmt.Fprintln(cmd.ErrOrStderr(), "there is no journal of nodes: nodes.keep or nodes.max is 0")
		}
		for _, n := range page.Rows {
			if !slices.ContainsFunc(asked.filters, func(f func(admin.Node) bool) bool { return !f(n) }) {
				all = append(all, n)
			}
		}
		if q.Offset += len(page.Rows); len(page.Rows) == 0 || q.Offset >= page.Total {
			return all, nil
		}
	}
}

// oneNode prints the images of one node.
func oneNode(cmd *cobra.Command, flags *table.Flags, address string) error {
	if !cmd.Flags().Changed("output") {
		flags.Fields = nodeFetchFields
	}
	out, err := nodeFetchTable.Layout(flags)
	if err != nil {
		return err
	}
	return withSession(cmd, needFiles, func(ctx context.Context, s *session) error {
		n, err := s.Node(ctx, address)
		if err != nil {
			return err
		}
		if out.JSON {
			return table.JSON(cmd.OutOrStdout(), n)
		}
		return out.Print(cmd.OutOrStdout(), n.Fetches)
	})
}

// forgetNodes deletes one node, or the journal.
func forgetNodes(cmd *cobra.Command, address string, quiet bool) error {
	return withSession(cmd, needFiles, func(ctx context.Context, s *session) error {
		ask := s.ForgetNodes
		if address != "" {
			ask = func(ctx context.Context) (admin.Forgotten, error) { return s.ForgetNode(ctx, address) }
		}
		gone, err := ask(ctx)
		if err != nil || quiet {
			return err
		}
		switch {
		case address != "" && gone.Removed == 0:
			fmt.Fprintf(cmd.OutOrStdout(), "the journal knew nothing of %s\n", address)
		case gone.Removed == 1:
			fmt.Fprintln(cmd.OutOrStdout(), "1 node was deleted from the journal")
		default:
			fmt.Fprintf(cmd.OutOrStdout(), "%d nodes were deleted from the journal\n", gone.Removed)
		}
		return nil
	})
}

// someNodes are the addresses to complete to.
func someNodes(ctx context.Context, s *session) ([]choice, error) {
	page, err := s.Nodes(ctx, admin.NodeQuery{Limit: 100})
	all := make([]choice, len(page.Rows))
	for i, n := range page.Rows {
		all[i] = choice{n.Address, table.Printable(strings.TrimSpace(n.Client + " " + n.ClientVersion))}
	}
	return all, err
}
