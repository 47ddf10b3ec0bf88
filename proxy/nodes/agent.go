package nodes

import (
	"regexp"
	"strings"
)

// Client is what a user agent tells of a client.
type Client struct {
	Name     string // imgadm, curl, imgmirror, …; "" when the client sent no user agent
	Version  string
	Platform string // of SmartOS, such as 20260101T000000Z, if the user agent has one
}

// platform is the form of a platform's name. imgadm sends its platform only if imgadm.conf has it
// in userAgentExtra.
var platform = regexp.MustCompile(`(?:^|[^0-9A-Za-z])(\d{8}T\d{6}Z)(?:$|[^0-9A-Za-z])`)

// ReadAgent reads a user agent: the first product, and a platform of SmartOS anywhere behind the
// product.
func ReadAgent(agent string) Client {
	product, rest, _ := strings.Cut(strings.TrimSpace(agent), " ")
	name, version, _ := strings.Cut(product, "/")
	c := Client{Name: name, Version: version}
	if found := platform.FindStringSubmatch(rest); found != nil {
		c.Platform = found[1]
	}
	return c
}
