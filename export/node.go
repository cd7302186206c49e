package export

import (
	"fmt"
	"strconv"

	"go.yaml.in/yaml/v3"

	"tidegate.io/tidegate/egress"
)

// Trees of YAML, with comments, in the order in which they are written.

// object makes a mapping of keys and values by turns. A nil value is left out
// with its key.
func object(pairs ...any) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for i := 0; i < len(pairs); i += 2 {
		if v := node(pairs[i+1]); v != nil {
			n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: pairs[i].(string)}, v)
		}
	}
	return n
}

// array makes a sequence; an empty one is nil, for formats that take no empty
// lists.
func array[T any](items []T) any {
	if len(items) == 0 {
		return nil
	}
	n := &yaml.Node{Kind: yaml.SequenceNode}
	for _, v := range items {
		n.Content = append(n.Content, node(v))
	}
	return n
}

// empty is {}, which in Kubernetes selects everything.
func empty() *yaml.Node { return &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle} }

func node(v any) *yaml.Node {
	switch v := v.(type) {
	case nil:
		return nil
	case *yaml.Node:
		return v
	case string:
		return text(v)
	case egress.Pattern:
		return text(v.String())
	case int:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.Itoa(v)}
	case uint16:
		return node(int(v))
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(v)}
	}
	panic(fmt.Sprintf("export: no node for %T", v))
}

// text is always in quotes, so that no reader takes a word for something else.
func text(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: valid(s), Style: yaml.DoubleQuotedStyle}
}

// headed puts a comment before n.
func headed(n *yaml.Node, comment string) *yaml.Node {
	n.HeadComment = "# " + oneLine(comment)
	return n
}

// kube makes the head of a Kubernetes object.
func kube(apiVersion, kind, namespace, name string, spec *yaml.Node) *yaml.Node {
	var ns any
	if namespace != "" {
		ns = namespace
	}
	return object("apiVersion", apiVersion, "kind", kind, "metadata", object("name", name, "namespace", ns), "spec", spec)
}

// maxKubeName is a label's length, which every name of an object may have.
const maxKubeName = 63

// kubeNames makes names of objects, which Kubernetes wants in lower case.
func kubeNames() *namer { return newNamer(maxKubeName, '-') }
