package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The one version and kind of file that this package reads.
const (
	apiVersion = "tidegate.io/v1"
	kind       = "Gateway"
)

// file is the text of the gateway's file: every value still as it was written,
// with its line.
type file struct {
	APIVersion  word          `yaml:"apiVersion"`
	Kind        word          `yaml:"kind"`
	Clusters    []fileCluster `yaml:"clusters"`
	Rules       []fileRule    `yaml:"rules"`
	DNS         fileDNS       `yaml:"dns"`
	Proxy       fileProxy     `yaml:"proxy"`
	Masquerade  *bool         `yaml:"masquerade"`
	Management  word          `yaml:"management"`
	State       word          `yaml:"state"`
	Log         fileLog       `yaml:"log"`
	ServiceTags word          `yaml:"serviceTags"`
}

type fileCluster struct {
	Name      word    `yaml:"name"`
	From      []word  `yaml:"from"`
	Internal  []word  `yaml:"internal"`
	AKS       fileAKS `yaml:"aks"`
	Mode      word    `yaml:"mode"`
	DNS       word    `yaml:"dns"`
	APIServer word    `yaml:"apiServer"`
}

// fileAKS is either the name of a file, or facts for a cluster that does not
// exist yet.
type fileAKS struct {
	set   bool
	line  int
	file  word
	facts fileFacts
}

type fileFacts struct {
	Cloud     word   `yaml:"cloud"`
	Region    word   `yaml:"region"`
	With      []word `yaml:"with"`
	Without   []word `yaml:"without"`
	FQDN      word   `yaml:"fqdn"`
	File      word   `yaml:"file"`
	Edition   word   `yaml:"edition"`
	AsStated  bool   `yaml:"asStated"`
	APIAccess word   `yaml:"apiAccess"`

	Recommended    *bool  `yaml:"recommended"`
	Extensions     word   `yaml:"extensions"`
	KeyVaults      []word `yaml:"keyVaults"`
	DNSServers     []word `yaml:"dnsServers"`
	APIServerAddrs []word `yaml:"apiServerAddresses"`
}

// factKeys are the keys of fileFacts, for an error that lists them.
var factKeys = []string{
	"file", "cloud", "region", "with", "without", "fqdn", "edition", "asStated", "apiAccess", "recommended",
	"extensions", "keyVaults", "dnsServers", "apiServerAddresses",
}

type fileRule struct {
	ID     word   `yaml:"id"`
	From   []word `yaml:"from"`
	To     []word `yaml:"to"`
	Why    word   `yaml:"why"`
	Source word   `yaml:"source"`
	Need   word   `yaml:"need"`
}

type fileDNS struct {
	Upstream []word `yaml:"upstream"`
	Also     []word `yaml:"also"`
	Listen   []word `yaml:"listen"`
}

type fileProxy struct {
	Listen word `yaml:"listen"`
}

type fileLog struct {
	Flows word `yaml:"flows"`
}

// word is a scalar as it was written, and its line.
type word struct {
	text string
	line int
}

// UnmarshalYAML takes a scalar only. It stays text, so that no value is ever
// turned into a number or a boolean on the way.
func (w *word) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return lineError{n.Line, "want one value, not a list or a map"}
	}
	*w = word{n.Value, n.Line}
	return nil
}

// UnmarshalYAML takes a file's name or a map of facts.
func (a *fileAKS) UnmarshalYAML(n *yaml.Node) error {
	a.set, a.line = true, n.Line
	if n.Kind == yaml.ScalarNode {
		a.file = word{n.Value, n.Line}
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return lineError{n.Line, "want a file's name, or a map with cloud and region"}
	}
	if err := knownKeys(n, factKeys); err != nil {
		return err
	}
	if err := n.Decode(&a.facts); err != nil {
		return err
	}
	a.file = a.facts.File
	return nil
}

// knownKeys is what Decoder.KnownFields does, for a node that decodes itself.
func knownKeys(n *yaml.Node, known []string) error {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if line, twice := seen[key.Value]; twice {
			return lineError{key.Line, fmt.Sprintf("key %q was given in line %d already", key.Value, line)}
		}
		seen[key.Value] = key.Line
		if !slices.Contains(known, key.Value) {
			return lineError{key.Line, fmt.Sprintf("unknown key %q; want one of %s", key.Value, strings.Join(known, ", "))}
		}
	}
	return nil
}

// lineError is an error at a line of the file.
type lineError struct {
	line int
	msg  string
}

func (e lineError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.msg) }

// parse reads the text and nothing more.
func parse(text []byte) (f file, err error) {
	if rest, rules, ok := cutRules(text); ok {
		if f, err = parseYAML(rest); err == nil && len(f.Rules) == 0 {
			f.Rules = rules
			return f, nil
		}
	}
	return parseYAML(text)
}

func parseYAML(text []byte) (f file, err error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&f); errors.Is(err, io.EOF) {
		return f, errors.New("nothing in it")
	} else if err != nil {
		return f, errors.New(plain(err))
	}
	if dec.Decode(new(yaml.Node)) == nil {
		return f, errors.New("there is a second document behind the first")
	}
	switch {
	case f.APIVersion.text != apiVersion:
		return f, lineError{max(1, f.APIVersion.line), fmt.Sprintf("apiVersion %q: want %s", f.APIVersion.text, apiVersion)}
	case f.Kind.text != kind:
		return f, lineError{max(1, f.Kind.line), fmt.Sprintf("kind %q: want %s", f.Kind.text, kind)}
	}
	return f, nil
}

var (
	unknownField = regexp.MustCompile(`field (\S+) not found in type \S+`)
	doubledField = regexp.MustCompile(`mapping key ("[^"]*") already defined at line (\d+)`)
	intoType     = regexp.MustCompile(`cannot unmarshal \S+ (.*)into \S+`)
)

// plain says what the YAML reader says, in the words of the file's author.
func plain(err error) string {
	var lines []string
	var te *yaml.TypeError
	if errors.As(err, &te) {
		lines = te.Errors
	} else {
		lines = []string{strings.TrimPrefix(err.Error(), "yaml: ")}
	}
	for i, s := range lines {
		s = unknownField.ReplaceAllString(s, `unknown key "$1"`)
		s = doubledField.ReplaceAllString(s, `key $1 was given in line $2 already`)
		lines[i] = intoType.ReplaceAllString(s, `a value of another shape is wanted here ${1}`)
	}
	return strings.Join(lines, "; ")
}
