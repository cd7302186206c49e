package aks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxListJSON bounds the lists that go with a cluster.
const maxListJSON = 4 << 20

// Extension is a cluster extension.
type Extension struct {
	Name        string
	Type        string // such as microsoft.flux
	Marketplace bool   // bought from the marketplace: it has a plan
}

// ReadExtensions reads what `az k8s-extension list --cluster-type
// managedClusters` or the resource manager prints.
func ReadExtensions(r io.Reader) ([]Extension, error) {
	type item struct {
		Name, Type, ExtensionType string
		Plan                      json.RawMessage
		Properties                struct{ ExtensionType string }
	}
	items, err := readList[item](r)
	if err != nil {
		return nil, fmt.Errorf("extensions: %w", err)
	}
	var out []Extension
	for i, it := range items {
		e := Extension{Name: it.Name, Type: it.ExtensionType, Marketplace: len(it.Plan) > 0 && !bytes.Equal(it.Plan, []byte("null"))}
		if e.Type == "" {
			e.Type = it.Properties.ExtensionType
		}
		if e.Type == "" {
			return nil, fmt.Errorf("extensions: item %d has no extensionType; want the output of: az k8s-extension list", i+1)
		}
		out = append(out, e)
	}
	return out, nil
}

// readList reads a JSON array, or the resource manager's {"value": array}.
func readList[T any](r io.Reader) ([]T, error) {
	b, err := readBounded(r, maxListJSON)
	if err != nil {
		return nil, err
	}
	var items []T
	if b = bytes.TrimSpace(b); b[0] == '{' {
		var page struct{ Value *[]T }
		if err := json.Unmarshal(b, &page); err != nil {
			return nil, jsonError(b, err)
		}
		if page.Value == nil {
			return nil, errors.New("JSON of something else, not a list")
		}
		return *page.Value, nil
	}
	if err := json.Unmarshal(b, &items); err != nil {
		return nil, jsonError(b, err)
	}
	return items, nil
}

// WithExtensions returns the cluster with its extensions known.
func (c Cluster) WithExtensions(es []Extension) Cluster {
	c.Installed = es
	if c.Installed == nil {
		c.Installed = []Extension{} // known to be none
	}
	for _, e := range es {
		c = c.With(Extensions, "extension "+e.Name)
		if e.Marketplace {
			c = c.With(Marketplace, "extension "+e.Name)
		}
	}
	return c
}

// ownLists are the extensions whose own documentation asks for more than the
// article does.
var ownLists = []struct{ kind, needs string }{
	{"microsoft.flux", "your Git servers, by HTTPS or SSH"},
	{"microsoft.dataprotection.kubernetes", "the storage of the backup, and what the backup's documentation lists"},
	{"microsoft.azureml.kubernetes", "what the workspace's outboundNetworkDependenciesEndpoints lists"},
}

// extensionNotes say what the article leaves out about extensions.
func (c *Cluster) extensionNotes() []Note {
	if c.Installed == nil {
		if c.Has(Extensions) || c.Name == "" {
			return nil
		}
		return []Note{{Info, "extensions-unknown", "", "No field shows cluster extensions; if there are any, their list is needed too."}}
	}
	var notes []Note
	for _, e := range c.Installed {
		for _, own := range ownLists {
			if strings.EqualFold(e.Type, own.kind) {
				notes = append(notes, Note{Info, "own-list", "", fmt.Sprintf("The extension %s (%s) needs more than the article says: %s.", e.Name, e.Type, own.needs)})
			}
		}
	}
	return notes
}
