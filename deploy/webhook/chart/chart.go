// Package chart holds the webhook's Helm chart and writes plain manifests from
// it, so that the two are one text. It knows the few template functions that
// the chart uses, and none else of Helm; it reads and writes no files.
package chart

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"tidegate.io/tidegate/egress"
)

//go:embed Chart.yaml values.yaml values.schema.json templates
var files embed.FS

// order is the order of the manifests: what others need comes first, and the
// API server hears of the webhook last.
var order = []string{"namespace", "rbac", "certificate", "service", "networkpolicy", "deployment", "availability", "webhook"}

// Values are the chart's values; values.yaml says what each is for.
type Values struct {
	APIServer          string            `json:"apiServer"`
	Image              string            `json:"image"`
	Name               string            `json:"name"`
	CreateNamespace    bool              `json:"createNamespace"`
	Replicas           int               `json:"replicas"`
	Namespaces         []string          `json:"namespaces"`
	ExcludedNamespaces []string          `json:"excludedNamespaces"`
	OptOut             string            `json:"optOut"`
	Certificate        Certificate       `json:"certificate"`
	Resources          map[string]any    `json:"resources"`
	NodeSelector       map[string]string `json:"nodeSelector"`
	Tolerations        []map[string]any  `json:"tolerations"`
	PriorityClassName  string            `json:"priorityClassName"`
}

// Certificate says where the webhook's serving certificate comes from.
type Certificate struct {
	Secret      string            `json:"secret"`
	CABundle    []byte            `json:"caBundle"` // PEM; base64 as JSON
	Annotations map[string]string `json:"annotations"`
}

// Defaults are the values of values.yaml, without the name of the API server
// and the image, which have none.
func Defaults() Values {
	b, err := files.ReadFile("values.yaml")
	if err != nil {
		panic(err) // embedded above
	}
	var v Values
	if err := yaml.UnmarshalStrict(b, &v); err != nil {
		panic(err) // a test reads it
	}
	return v
}

// image is the same as in values.schema.json: nothing in it means anything to YAML.
var image = regexp.MustCompile(`^[a-zA-Z0-9][-a-zA-Z0-9._:/@]*$`)

// check refuses what the chart's schema refuses.
func (v *Values) check(namespace string) error {
	if _, err := egress.ParseName(v.APIServer); err != nil {
		return fmt.Errorf("api server: %w", err)
	}
	if !image.MatchString(v.Image) {
		return fmt.Errorf("image %q: want the reference of an image", v.Image)
	}
	if v.Replicas < 1 || v.Replicas > 100 {
		return fmt.Errorf("replicas %d: want 1 to 100", v.Replicas)
	}
	if v.OptOut != "" {
		if problems := validation.IsQualifiedName(v.OptOut); len(problems) > 0 {
			return fmt.Errorf("opt-out %q: %s", v.OptOut, problems[0])
		}
	}
	if v.Certificate.Secret != "" {
		if problems := validation.IsDNS1123Subdomain(v.Certificate.Secret); len(problems) > 0 {
			return fmt.Errorf("secret %q: %s", v.Certificate.Secret, problems[0])
		}
	}
	for _, label := range slices.Concat([]string{v.Name, namespace}, v.Namespaces, v.ExcludedNamespaces) {
		if problems := validation.IsDNS1123Label(label); len(problems) > 0 {
			return fmt.Errorf("name %q: %s", label, problems[0])
		}
	}
	if slices.Contains(v.Namespaces, namespace) {
		return fmt.Errorf("namespace %q: the webhook's own cannot be one whose pods need it to start", namespace)
	}
	return nil
}

// Manifests renders the chart for a namespace: YAML documents in the order in
// which they are to be applied.
func (v *Values) Manifests(namespace string) ([]byte, error) {
	if err := v.check(namespace); err != nil {
		return nil, err
	}
	values, err := tree(v)
	if err != nil {
		return nil, err
	}
	t, err := template.New("").Option("missingkey=error").Funcs(functions()).ParseFS(files, "templates/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("chart: %w", err)
	}
	var out bytes.Buffer
	for _, name := range order {
		var doc bytes.Buffer
		data := map[string]any{"Values": values, "Release": map[string]any{"Namespace": namespace}}
		if err := t.ExecuteTemplate(&doc, name+".yaml", data); err != nil {
			return nil, fmt.Errorf("chart: %w", err)
		}
		if text := bytes.TrimSpace(doc.Bytes()); len(text) > 0 {
			fmt.Fprintf(&out, "---\n%s\n", text)
		}
	}
	return out.Bytes(), nil
}

// tree is v as templates see it: by the names that values.yaml uses.
func tree(v *Values) (map[string]any, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var t map[string]any
	return t, json.Unmarshal(b, &t)
}

// functions are those of Helm that the chart uses, with Helm's order of arguments.
func functions() template.FuncMap {
	return template.FuncMap{
		"quote":   func(v any) string { return fmt.Sprintf("%q", fmt.Sprint(v)) },
		"nindent": func(n int, s string) string { return indent(n, s) },
		"toYaml": func(v any) (string, error) {
			b, err := yaml.Marshal(v)
			return strings.TrimSuffix(string(b), "\n"), err
		},
		"toJson": func(v any) (string, error) {
			b, err := json.Marshal(v)
			return string(b), err
		},
		"default": func(fallback, v any) any {
			if s, ok := v.(string); ok && s != "" {
				return v
			}
			return fallback
		},
		"join": func(by string, list any) (string, error) {
			items, err := stringsOf(list)
			return strings.Join(items, by), err
		},
		"prepend": func(list, v any) ([]string, error) {
			items, err := stringsOf(list)
			return append([]string{fmt.Sprint(v)}, items...), err
		},
		"has": func(v, list any) (bool, error) {
			items, err := stringsOf(list)
			return slices.Contains(items, fmt.Sprint(v)), err
		},
	}
}

func indent(n int, s string) string {
	pad := "\n" + strings.Repeat(" ", n)
	return pad + strings.ReplaceAll(s, "\n", pad)
}

func stringsOf(list any) ([]string, error) {
	switch list := list.(type) {
	case nil:
		return nil, nil
	case []string:
		return list, nil
	case []any:
		var out []string
		for _, v := range list {
			out = append(out, fmt.Sprint(v))
		}
		return out, nil
	}
	return nil, errors.New("want a list")
}
