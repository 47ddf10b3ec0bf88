package browse

import (
	"cmp"
	"slices"
	"sync"
)

// The fields by which a table can be sorted.
const (
	ByPublished = "published"
	ByName      = "name" // and by version within a name
	ByVersion   = "version"
	ByOS        = "os"
	ByType      = "type"
	BySize      = "size"
	BySource    = "source"
	ByState     = "state" // by the first of Query.States that a row is in, and then by reason
)

// Fields are the fields by which a table can be sorted.
var Fields = []string{ByPublished, ByName, ByVersion, ByOS, ByType, BySize, BySource, ByState}

// setOrders prepares the orders that do not depend on a query. Rows that are equal stay in the order
// of their dates.
func (t *Table) setOrders() {
	texts := sync.OnceValue(t.rankTexts)
	name := func() []uint32 { return t.keys(func(c *cell) uint32 { return texts()[c.name] }) }
	version := func() []uint32 { return t.keys(func(c *cell) uint32 { return texts()[c.version] }) }
	value := func(col int) func() []uint32 {
		return func() []uint32 {
			rank := t.columns[col].rank()
			return t.keys(func(c *cell) uint32 { return rank[c.values[col]] })
		}
	}
	order := func(keys ...func() []uint32) func() []int32 {
		return sync.OnceValue(func() []int32 {
			made := make([][]uint32, len(keys))
			for i, key := range keys {
				made[i] = key()
			}
			return t.sorted(func(a, b int32) int {
				for _, key := range made {
					if c := cmp.Compare(key[a], key[b]); c != 0 {
						return c
					}
				}
				return 0
			})
		})
	}
	t.orders = map[string]func() []int32{
		ByName:    order(name, version),
		ByVersion: order(version, name),
		ByOS:      order(value(colOS), name, version),
		ByType:    order(value(colType), name, version),
		BySource:  order(value(colSource)),
		BySize: sync.OnceValue(func() []int32 {
			sizes := make([]int64, len(t.images))
			for i := range t.images {
				sizes[i] = t.images[i].Size()
			}
			return t.sorted(func(a, b int32) int { return cmp.Compare(sizes[a], sizes[b]) })
		}),
	}
}

// keys gives a key for each row.
func (t *Table) keys(of func(*cell) uint32) []uint32 {
	keys := make([]uint32, len(t.cells))
	for i := range t.cells {
		keys[i] = of(&t.cells[i])
	}
	return keys
}

// sorted gives the rows in an order.
func (t *Table) sorted(compare func(a, b int32) int) []int32 {
	rows := make([]int32, len(t.images))
	for i := range rows {
		rows[i] = int32(i)
	}
	slices.SortFunc(rows, func(a, b int32) int { return cmp.Or(compare(a, b), cmp.Compare(a, b)) })
	return rows
}

// rankTexts gives for each text its place among all texts in the order of compare.
func (t *Table) rankTexts() []uint32 {
	return rank(len(t.texts.starts), func(a, b uint32) int {
		return compare(string(t.texts.get(a)), string(t.texts.get(b)))
	})
}

// rank is rankTexts for the values of a column.
func (c *column) rank() []uint32 {
	return rank(len(c.values), func(a, b uint32) int { return compare(c.values[a], c.values[b]) })
}

func rank(n int, compare func(a, b uint32) int) []uint32 {
	order, ranks := make([]uint32, n), make([]uint32, n)
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, compare)
	for place, i := range order {
		ranks[i] = uint32(place)
	}
	return ranks
}

// compare orders texts as people do: runs of digits count as numbers, so that 9.2 is before 9.10.
func compare(a, b string) int {
	for a != "" && b != "" {
		x, y := digits(a), digits(b)
		if x == 0 || y == 0 {
			if a[0] != b[0] {
				return cmp.Compare(a[0], b[0])
			}
			a, b = a[1:], b[1:]
			continue
		}
		m, n := trimZeros(a[:x]), trimZeros(b[:y])
		if c := cmp.Or(cmp.Compare(len(m), len(n)), cmp.Compare(m, n), cmp.Compare(x, y)); c != 0 {
			return c
		}
		a, b = a[x:], b[y:]
	}
	return cmp.Compare(len(a), len(b))
}

// digits is the number of digits that text begins with.
func digits(text string) int {
	n := 0
	for n < len(text) && '0' <= text[n] && text[n] <= '9' {
		n++
	}
	return n
}

func trimZeros(number string) string {
	for len(number) > 1 && number[0] == '0' {
		number = number[1:]
	}
	return number
}
