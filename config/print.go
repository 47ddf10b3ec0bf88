package config

import (
	"bytes"
	"fmt"
	"reflect"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"
)

// YAML writes every effective value in the form of the file; Load reads the same values back. It
// contains no secrets: the settings hold the names of secret files only, and passwords in URLs are
// masked.
func (c Config) YAML() ([]byte, error) {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(node(reflect.ValueOf(c))); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return b.Bytes(), e.Close()
}

// node is v as the file has it.
func node(v reflect.Value) *yaml.Node {
	switch value := v.Interface().(type) {
	case time.Duration:
		return scalar(short(value))
	case URL:
		return text(value.String())
	case Size:
		if value == 0 {
			return text("")
		}
		return scalar(value.String())
	}
	n := &yaml.Node{}
	switch v.Kind() {
	case reflect.Struct:
		n.Kind = yaml.MappingNode
		for _, f := range fieldsOf(v.Type()) {
			n.Content = append(n.Content, scalar(f.key), node(v.Field(f.index)))
		}
	case reflect.Slice:
		n.Kind = yaml.SequenceNode
		if v.Len() == 0 {
			n.Style = yaml.FlowStyle
		}
		for i := range v.Len() {
			n.Content = append(n.Content, node(v.Index(i)))
		}
	case reflect.Bool:
		n.Kind, n.Tag, n.Value = yaml.ScalarNode, "!!bool", strconv.FormatBool(v.Bool())
	case reflect.Int:
		n.Kind, n.Tag, n.Value = yaml.ScalarNode, "!!int", strconv.FormatInt(v.Int(), 10)
	default:
		return text(v.String())
	}
	return n
}

// text is a scalar that is a string for every reader of YAML.
func text(s string) *yaml.Node {
	n := scalar(s)
	if s == "" {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}
