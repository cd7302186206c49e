package mirror

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// serveReferrers lists what refers to a manifest (OCI distribution specification,
// "Listing Referrers"). It is not the library's answer, whose empty list is null.
func (m *Mirror) serveReferrers(w http.ResponseWriter, r *http.Request, x *exchange, d digest.Digest) {
	if checkDigest(d) != nil {
		m.writeError(w, r, ociregistry.ErrDigestInvalid)
		return
	}
	kind := r.URL.Query().Get("artifactType")
	found, err := m.referrers(r.Context(), x, d, kind)
	if err != nil {
		m.writeError(w, r, err)
		return
	}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: append([]ocispec.Descriptor{}, found...)}
	index.SchemaVersion = 2
	b, err := json.Marshal(index)
	if err != nil {
		m.writeError(w, r, err)
		return
	}
	w.Header().Set("Content-Type", index.MediaType)
	if kind != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	_, _ = w.Write(b) // a client that has gone
}

// referrers asks the upstream, or is what is known. Nothing known is an empty
// list, since clients take an error for a broken registry.
func (m *Mirror) referrers(ctx context.Context, x *exchange, d digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	x.result = Hit
	if x.upstream.Mode == Online && !x.upstream.isDown() {
		listed, err := gather(ctx, x, func(ctx context.Context, c ociregistry.Interface) iter.Seq2[ocispec.Descriptor, error] {
			return c.Referrers(ctx, x.repo, d, artifactType)
		})
		if err == nil {
			x.result = Miss
			return listed, nil
		}
		x.result = Stale
		m.log("referrers are listed as known", "upstream", x.upstream.Name, "repository", x.repo, "error", err.Error())
	}
	return m.Store.repository(x.upstream.Name, x.repo).referrers(d, artifactType)
}
