package page

import "imgmirror/proxy/admin"

// overview is the value of overview.html.
type overview struct {
	Fills []admin.Fill
}

func (p *Page) overview(v *visit) (any, error) { return v.look().overview() }

func (l *look) overview() (*overview, error) {
	fills, err := l.page.o.API.Fills(l)
	if err != nil {
		return nil, err
	}
	if !l.operator {
		fills = publicFills(l, l.page.o.API, fills)
	}
	return &overview{Fills: fills}, nil
}
