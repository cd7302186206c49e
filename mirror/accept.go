package mirror

import (
	"mime"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// manifestTypes are the manifests that are mirrored. Docker's first schema is
// not: its digest is not of the bytes that are served. The letter names a type in
// the name of a file.
var manifestTypes = []struct {
	mediaType string
	letter    byte
	index     bool
}{
	{ocispec.MediaTypeImageIndex, 'i', true},
	{ocispec.MediaTypeImageManifest, 'm', false},
	{"application/vnd.docker.distribution.manifest.list.v2+json", 'l', true},
	{"application/vnd.docker.distribution.manifest.v2+json", 'd', false},
	{"application/vnd.oci.artifact.manifest.v1+json", 'a', false}, // before OCI 1.1; old signatures have it
}

// Accept is which manifests a client can read, as letters of manifestTypes. The
// zero value is a client that reads all of them.
type Accept string

// ParseAccept reads Accept headers (RFC 9110 section 12.5.1). A weight only counts
// where it is zero: registries have one form of a manifest, seldom two.
func ParseAccept(headers []string) Accept {
	var can [8]bool
	some := false
	for _, h := range headers {
		for part := range strings.SplitSeq(h, ",") {
			t, params, err := mime.ParseMediaType(part)
			if err != nil || params["q"] == "0" || strings.HasPrefix(params["q"], "0.0") && strings.Trim(params["q"], "0.") == "" {
				continue
			}
			if t == "*/*" || t == "application/*" {
				return ""
			}
			for i, m := range manifestTypes {
				if m.mediaType == t {
					can[i], some = true, true
				}
			}
		}
	}
	var a Accept
	for i, m := range manifestTypes {
		if can[i] {
			a += Accept(m.letter)
		}
	}
	if !some || len(a) == len(manifestTypes) {
		return "" // a client that says nothing we know, such as curl, gets what there is
	}
	return a
}

// allows reports whether the client can read a media type.
func (a Accept) allows(mediaType string) bool {
	for _, m := range manifestTypes {
		if m.mediaType == mediaType {
			return a == "" || strings.IndexByte(string(a), m.letter) >= 0
		}
	}
	return false
}

// header is what an upstream is asked for.
func (a Accept) header() string {
	var types []string
	for _, m := range manifestTypes {
		if a.allows(m.mediaType) {
			types = append(types, m.mediaType)
		}
	}
	return strings.Join(types, ", ")
}
