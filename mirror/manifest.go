package mirror

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What a manifest may be. Registries promise to take 4 MiB (OCI distribution
// specification, "Pushing manifests"), so more is no image but an attack on
// memory. No real image has a hundredth of the entries.
const (
	maxManifest = 4 << 20
	maxEntries  = 16 << 10
)

// manifest is what the mirror reads of a manifest, whichever kind it is.
type manifest struct {
	MediaType    string               `json:"mediaType"`
	ArtifactType string               `json:"artifactType"`
	Config       *ocispec.Descriptor  `json:"config"`
	Layers       []ocispec.Descriptor `json:"layers"`
	Blobs        []ocispec.Descriptor `json:"blobs"` // of the artifact manifest
	Manifests    []ocispec.Descriptor `json:"manifests"`
	Subject      *ocispec.Descriptor  `json:"subject"`
	Annotations  map[string]string    `json:"annotations"`
}

// readManifest is parseManifest whose errors a client may be told.
func readManifest(mediaType string, text []byte) (*manifest, error) {
	m, err := parseManifest(mediaType, text)
	if err != nil {
		return nil, ociregistry.NewError(err.Error(), ociregistry.ErrManifestInvalid.Code(), nil)
	}
	return m, nil
}

// parseManifest reads a manifest that came with a media type, which may be empty
// or vague, and returns the one that it has.
func parseManifest(mediaType string, text []byte) (*manifest, error) {
	if len(text) > maxManifest {
		return nil, fmt.Errorf("manifest: %d bytes, more than %d", len(text), maxManifest)
	}
	var m manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if err := m.decideType(mediaType); err != nil {
		return nil, err
	}
	if n := len(m.Layers) + len(m.Manifests) + len(m.Blobs); n > maxEntries {
		return nil, fmt.Errorf("manifest: %d entries, more than %d", n, maxEntries)
	}
	for _, d := range m.all() {
		if err := checkDigest(d.Digest); err != nil {
			return nil, fmt.Errorf("manifest: %w", err)
		}
		if d.Size < 0 {
			return nil, fmt.Errorf("manifest: %s: size %d", d.Digest, d.Size)
		}
		// A client that follows such a URL can be made to show its credentials
		// to whoever wrote the manifest (CVE-2020-15157), and goes around the mirror.
		if len(d.URLs) > 0 {
			return nil, fmt.Errorf("manifest: %s is to be had from a URL of its own, which is not mirrored", d.Digest)
		}
	}
	return &m, nil
}

// decideType settles the media type: what was said, what the manifest says, and
// for old OCI manifests, which need not say, what it looks like. A manifest that
// says it is another kind than the header does is read differently by different
// clients (CVE-2021-41190), and so is one with entries of both kinds.
func (m *manifest) decideType(said string) error {
	said, _, _ = mime.ParseMediaType(said)
	known := false
	for _, t := range manifestTypes {
		known = known || t.mediaType == said
	}
	switch {
	case !known && (said == "" || said == "application/json" || said == "application/octet-stream" || said == "text/plain"):
		said = m.MediaType
		if said == "" && m.Manifests != nil {
			said = ocispec.MediaTypeImageIndex
		} else if said == "" && m.Config != nil {
			said = ocispec.MediaTypeImageManifest
		}
	case !known:
		return fmt.Errorf("manifest: media type %q is not mirrored", said)
	}
	if m.MediaType != "" && m.MediaType != said {
		return fmt.Errorf("manifest: served as %q, says that it is %q", said, m.MediaType)
	}
	if m.Manifests != nil && (m.Layers != nil || m.Config != nil) {
		return errors.New("manifest: both an index and an image")
	}
	for _, t := range manifestTypes {
		if t.mediaType == said {
			if t.index != (m.Manifests != nil) {
				return fmt.Errorf("manifest: served as %q, has not its entries", said)
			}
			m.MediaType = said
			return nil
		}
	}
	return fmt.Errorf("manifest: media type %q is not mirrored", said)
}

// blobs are what an image needs besides manifests.
func (m *manifest) blobs() []ocispec.Descriptor {
	var ds []ocispec.Descriptor
	if m.Config != nil {
		ds = append(ds, *m.Config)
	}
	return append(append(ds, m.Layers...), m.Blobs...)
}

func (m *manifest) all() []ocispec.Descriptor {
	ds := append(m.blobs(), m.Manifests...)
	if m.Subject != nil {
		ds = append(ds, *m.Subject)
	}
	return ds
}

// describe is m as an entry of the list of what refers to its subject (OCI
// distribution specification, "Listing Referrers").
func (m *manifest) describe(d digest.Digest, size int64) ocispec.Descriptor {
	kind := m.ArtifactType
	if kind == "" && m.Config != nil {
		kind = m.Config.MediaType
	}
	return ocispec.Descriptor{MediaType: m.MediaType, Digest: d, Size: size, ArtifactType: kind, Annotations: m.Annotations}
}
