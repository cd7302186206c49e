package mirror

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Platform is for what an image is: os/architecture[/variant][:os.version].
type Platform struct{ OS, Architecture, Variant, OSVersion string }

// ParsePlatform reads a platform.
func ParsePlatform(s string) (Platform, error) {
	where, version, _ := strings.Cut(s, ":")
	parts := strings.Split(where, "/")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || parts[1] == "" {
		return Platform{}, fmt.Errorf("platform %q: want os/architecture, such as linux/amd64", s)
	}
	p := Platform{OS: parts[0], Architecture: parts[1], OSVersion: version}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p, nil
}

// wants reports whether an entry of an index is for p. What p leaves out may be anything.
func (p Platform) wants(d ocispec.Descriptor) bool {
	q := d.Platform
	return q != nil && q.OS == p.OS && q.Architecture == p.Architecture &&
		(p.Variant == "" || p.Variant == q.Variant) && (p.OSVersion == "" || p.OSVersion == q.OSVersion)
}

// Preload says what Pull fetches beside the image itself.
type Preload struct {
	Platforms []Platform // of indexes; none is all of them
	Referrers bool       // signatures and the like, too
	Keep      bool       // it is never collected
}

// Bounds of one image.
const (
	pullAtOnce = 4
	maxDepth   = 4 // an index of indexes, with referrers
)

// Pull fetches an image with everything that belongs to it, as a node that asks
// for all of it would. It returns how many bytes it has now.
func (m *Mirror) Pull(ctx context.Context, r Reference, what Preload) (int64, error) {
	u, err := m.find(r)
	if err != nil {
		return 0, err
	}
	x := &exchange{upstream: u, repo: r.Repository}
	if err := x.permit(); err != nil {
		return 0, err
	}
	desc, err := m.resolve(ctx, u, r)
	if err != nil {
		return 0, err
	}
	p := &pull{m: m, u: u, repo: r.Repository, what: what, done: map[digest.Digest]bool{}}
	if err := p.manifest(ctx, desc.Digest, 0); err != nil {
		return p.bytes, err
	}
	if what.Keep {
		return p.bytes, m.Store.repository(u.Name, r.Repository).keep(desc)
	}
	return p.bytes, nil
}

func (m *Mirror) find(r Reference) (*Upstream, error) {
	for _, u := range m.Upstreams {
		if u.Name == r.Upstream {
			return u, nil
		}
	}
	return nil, fmt.Errorf("%s is no upstream", r.Upstream)
}

// resolve finds the manifest of a reference, whose tag, if it has both, must be
// what its digest says.
func (m *Mirror) resolve(ctx context.Context, u *Upstream, r Reference) (desc ocispec.Descriptor, err error) {
	if r.Tag == "" {
		desc, _, err = m.manifest(ctx, u, r.Repository, r.Digest)
		return desc, err
	}
	desc, _, err = m.tag(ctx, u, r.Repository, r.Tag, "")
	if err == nil && r.Digest != "" && desc.Digest != r.Digest {
		err = fmt.Errorf("%s: the tag is %s", r, desc.Digest)
	}
	return desc, err
}

// pull is one image on its way.
type pull struct {
	m     *Mirror
	u     *Upstream
	repo  string
	what  Preload
	done  map[digest.Digest]bool
	bytes int64
}

func (p *pull) manifest(ctx context.Context, d digest.Digest, depth int) error {
	if p.done[d] {
		return nil
	}
	if depth > maxDepth {
		return fmt.Errorf("%s: too deep an index", d)
	}
	p.done[d] = true
	desc, _, err := p.m.manifest(ctx, p.u, p.repo, d)
	if err != nil {
		return err
	}
	text, err := p.m.Store.read(d)
	if err != nil {
		return err
	}
	man, err := readManifest(desc.MediaType, text)
	if err != nil {
		return err
	}
	p.bytes += desc.Size
	if err := p.blobs(ctx, man.blobs()); err != nil {
		return err
	}
	children := p.choose(man.Manifests)
	if len(man.Manifests) > 0 && len(children) == 0 {
		return fmt.Errorf("%s: has nothing for the platforms that were asked for", d)
	}
	for _, child := range children {
		if err := p.manifest(ctx, child.Digest, depth+1); err != nil {
			return err
		}
	}
	return p.referrers(ctx, d, depth)
}

func (p *pull) choose(all []ocispec.Descriptor) []ocispec.Descriptor {
	if len(p.what.Platforms) == 0 {
		return all
	}
	var some []ocispec.Descriptor
	for _, d := range all {
		for _, want := range p.what.Platforms {
			if want.wants(d) {
				some = append(some, d)
				break
			}
		}
	}
	return some
}

func (p *pull) blobs(ctx context.Context, all []ocispec.Descriptor) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(pullAtOnce)
	for _, b := range all {
		if p.done[b.Digest] {
			continue
		}
		p.done[b.Digest] = true
		p.bytes += b.Size
		group.Go(func() error { return p.m.fetchBlob(ctx, p.u, p.repo, b) })
	}
	return group.Wait()
}

// fetchBlob has a blob of the size that its manifest says.
func (m *Mirror) fetchBlob(ctx context.Context, u *Upstream, repo string, b ocispec.Descriptor) error {
	size, err := m.Store.Size(b.Digest)
	if err != nil {
		if u.Mode == Offline {
			return fmt.Errorf("%s: %w", b.Digest, ociregistry.ErrBlobUnknown)
		}
		f := m.join(u, repo, b.Digest)
		defer f.leave()
		if err := f.whole(ctx); err != nil {
			return fmt.Errorf("%s: %w", b.Digest, err)
		}
		size, _ = f.known()
	}
	if size != b.Size {
		return fmt.Errorf("%s: %d bytes, its manifest says %d", b.Digest, size, b.Size)
	}
	return nil
}

func (p *pull) referrers(ctx context.Context, d digest.Digest, depth int) error {
	if !p.what.Referrers {
		return nil
	}
	x := &exchange{upstream: p.u, repo: p.repo}
	all, err := p.m.referrers(ctx, x, d, "")
	if err != nil {
		return err
	}
	for _, about := range all {
		if err := p.manifest(ctx, about.Digest, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// Forget lets an image that was kept be collected.
func (m *Mirror) Forget(ctx context.Context, r Reference) error {
	u, err := m.find(r)
	if err != nil {
		return err
	}
	offline := Mirror{Store: m.Store}
	desc, err := offline.resolve(ctx, &Upstream{Name: u.Name, Mode: Offline, Pins: u.Pins}, r)
	if err != nil {
		return err
	}
	if err := m.Store.repository(u.Name, r.Repository).forget(desc.Digest); err != nil {
		return errors.New("was not kept")
	}
	return nil
}
