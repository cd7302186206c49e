package peers

import (
	"net/http"
	"strings"

	"cuelabs.dev/go/oci/ociregistry/ociserver"
)

// serving answers requests for an image's layer, and leaves others to its registry.
func serving(i images, layer http.HandlerFunc) http.Handler {
	rest := ociserver.New(i.origin.store, nil)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, i.layer.Digest.String()) {
			layer(w, r)
			return
		}
		rest.ServeHTTP(w, r)
	})
}
