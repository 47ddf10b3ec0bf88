package e2e

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/scanner"
)

// What an expression of Prometheus names. promtool judges the syntax; this finds the names.

type named struct {
	selectors []selector
	labels    []string // of by, without, on, ignoring, group_left and group_right
}

// selector is a metric with its conditions.
type selector struct {
	metric   string
	matchers []matcher
}

type matcher struct{ label, op, value string }

// takes tells whether a series with that value of the label is selected.
func (m matcher) takes(value string) bool {
	switch m.op {
	case "=":
		return value == m.value
	case "!=":
		return value != m.value
	}
	is := regexp.MustCompile(`^(?:` + m.value + `)$`).MatchString(value)
	return is == (m.op == "=~")
}

// readExpr reads an expression that promtool has found to be right.
func readExpr(expr string) (n named) {
	var s scanner.Scanner
	s.Init(strings.NewReader(expr))
	s.Mode = scanner.ScanIdents | scanner.ScanFloats | scanner.ScanStrings
	s.Error = func(*scanner.Scanner, string) {} // of numbers such as 5m
	next := func() (rune, string) { t := s.Scan(); return t, s.TokenText() }
	grouping := []string{"by", "without", "on", "ignoring", "group_left", "group_right"}
	words := []string{"and", "or", "unless", "bool", "offset"}
	for {
		token, text := next()
		switch {
		case token == scanner.EOF:
			return n
		case token == '[': // a range
			for token != ']' && token != scanner.EOF {
				token, _ = next()
			}
		case token == scanner.Ident && text == "offset":
			next() // a number
			if s.Peek() >= 'a' && s.Peek() <= 'z' {
				next() // and its unit
			}
		case token == scanner.Ident && slices.Contains(grouping, text):
			for token != ')' && token != scanner.EOF {
				if token, text = next(); token == scanner.Ident {
					n.labels = append(n.labels, text)
				}
			}
		case token == scanner.Ident && !slices.Contains(words, text) && !isCall(&s):
			n.selectors = append(n.selectors, selector{text, readMatchers(&s)})
		}
	}
}

// isCall tells whether a ( follows, or a grouping: the name before is that of a function.
func isCall(s *scanner.Scanner) bool {
	for s.Peek() == ' ' || s.Peek() == '\n' {
		s.Next()
	}
	return s.Peek() == '(' || s.Peek() == 'b' || s.Peek() == 'w' // sum by, sum without
}

// readMatchers reads the conditions behind the name of a metric, if there are some.
func readMatchers(s *scanner.Scanner) (all []matcher) {
	if s.Peek() != '{' {
		return nil
	}
	var m matcher
	for token := s.Scan(); token != '}' && token != scanner.EOF; token = s.Scan() {
		switch token {
		case scanner.Ident:
			m = matcher{label: s.TokenText()}
		case scanner.String:
			m.value, _ = strconv.Unquote(s.TokenText())
			all = append(all, m)
		case '=', '!', '~':
			m.op += string(token)
		}
	}
	return all
}
