package mirror

import (
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"strings"

	"cuelabs.dev/go/oci/ociregistry/ociref"
	"github.com/opencontainers/go-digest"
)

// maxRepository bounds a repository's name: more than registries accept, and
// less than a path may have components of.
const maxRepository = 255

// Reference is an image by the registry that has it: one of Tag and Digest may
// be empty, or both are set and then the tag must have that digest.
type Reference struct {
	Upstream, Repository, Tag string
	Digest                    digest.Digest
}

// ParseReference reads registry/repository[:tag][@digest]. Short names of Docker
// Hub are not completed: what is mirrored is written out.
func ParseReference(s string) (Reference, error) {
	r, err := ociref.Parse(s)
	if err != nil {
		return Reference{}, fmt.Errorf("image %q: want registry/repository:tag or registry/repository@digest", s)
	}
	if r.Tag == "" && r.Digest == "" {
		return Reference{}, fmt.Errorf("image %q: say which tag or digest", s)
	}
	if r.Digest != "" {
		if err := checkDigest(r.Digest); err != nil {
			return Reference{}, fmt.Errorf("image %q: %w", s, err)
		}
	}
	if r.Tag != "" && !ociref.IsValidTag(r.Tag) {
		return Reference{}, fmt.Errorf("image %q: %q is no tag", s, r.Tag)
	}
	return Reference{r.Host, r.Repository, r.Tag, r.Digest}, nil
}

// String is the form that ParseReference reads.
func (r Reference) String() string {
	s := r.Upstream + "/" + r.Repository
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest.String()
	}
	return s
}

// checkDigest refuses what is no digest before it becomes part of a path: a
// digest with dots and slashes in it is how a cache is made to read and write
// elsewhere (CVE-2024-3727). Algorithms are those that the store verifies.
func checkDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", string(d), err)
	}
	if newHash(d) == nil {
		return fmt.Errorf("digest %q: want sha256 or sha512", string(d))
	}
	return nil
}

// newHash makes the hash of a digest's algorithm, or nil.
func newHash(d digest.Digest) hash.Hash {
	switch d.Algorithm() {
	case digest.SHA256:
		return sha256.New()
	case digest.SHA512:
		return sha512.New()
	}
	return nil
}

func checkRepository(name string) error {
	if len(name) > maxRepository || !ociref.IsValidRepository(name) {
		return fmt.Errorf("%q is no repository's name", name)
	}
	return nil
}

// Pattern permits repositories: a name is itself, a/* is everything below a, and
// * everything. The zero pattern permits nothing.
type Pattern struct{ text string }

// ParsePattern reads a pattern.
func ParsePattern(s string) (Pattern, error) {
	if s == "*" {
		return Pattern{s}, nil
	}
	if err := checkRepository(strings.TrimSuffix(s, "/*")); err != nil {
		return Pattern{}, errors.New(err.Error() + ", nor one with /* behind it")
	}
	return Pattern{s}, nil
}

// String is the form that ParsePattern reads.
func (p Pattern) String() string { return p.text }

// Matches reports whether p permits a repository.
func (p Pattern) Matches(repository string) bool {
	if below, ok := strings.CutSuffix(p.text, "*"); ok {
		return strings.HasPrefix(repository, below) && repository != below
	}
	return p.text != "" && p.text == repository
}

// cutPrefix takes whole components from the front of a name.
func cutPrefix(name, prefix string) (string, bool) {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok || prefix == "" {
		return name, false
	}
	return strings.CutPrefix(rest, "/")
}
