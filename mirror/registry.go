package mirror

import (
	"bytes"
	"context"
	"iter"
	"slices"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// registry is the mirror as the library that speaks the protocol wants it:
// manifests and lists, for the exchange that the context carries. It never writes.
type registry struct {
	*ociregistry.Funcs // nil: what is not below is not supported
	m                  *Mirror
}

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange { return ctx.Value(exchangeKey{}).(*exchange) }

// text is a manifest in memory.
type text struct {
	*bytes.Reader
	desc ocispec.Descriptor
}

func (t text) Close() error                       { return nil }
func (t text) Descriptor() ociregistry.Descriptor { return t.desc }

func (r *registry) open(x *exchange, desc ocispec.Descriptor, err error) (ociregistry.BlobReader, error) {
	if err != nil {
		return nil, unknown(err, ociregistry.ErrManifestUnknown)
	}
	b, err := r.m.readManifestText(desc.Digest)
	if err != nil {
		x.result = Failed
		return nil, err
	}
	x.upstream.Counts.served.Add(uint64(len(b)))
	return text{bytes.NewReader(b), desc}, nil
}

// unknown says that there is no such thing, where the upstream said so.
func unknown(err error, word ociregistry.Error) error {
	if gone(err) {
		return word
	}
	return err
}

// GetManifest implements [ociregistry.Reader].
func (r *registry) GetManifest(ctx context.Context, _ string, d ociregistry.Digest) (_ ociregistry.BlobReader, err error) {
	x := exchangeOf(ctx)
	desc, err := r.ResolveManifest(ctx, "", d)
	return r.open(x, desc, err)
}

// ResolveManifest implements [ociregistry.Reader].
func (r *registry) ResolveManifest(ctx context.Context, _ string, d ociregistry.Digest) (desc ocispec.Descriptor, err error) {
	x := exchangeOf(ctx)
	if checkDigest(d) != nil {
		return desc, ociregistry.ErrDigestInvalid
	}
	desc, x.result, err = r.m.manifest(ctx, x.upstream, x.repo, d)
	return desc, unknown(err, ociregistry.ErrManifestUnknown)
}

// GetTag implements [ociregistry.Reader].
func (r *registry) GetTag(ctx context.Context, _ string, tag string) (ociregistry.BlobReader, error) {
	x := exchangeOf(ctx)
	desc, err := r.ResolveTag(ctx, "", tag)
	return r.open(x, desc, err)
}

// ResolveTag implements [ociregistry.Reader].
func (r *registry) ResolveTag(ctx context.Context, _ string, tag string) (desc ocispec.Descriptor, err error) {
	x := exchangeOf(ctx)
	desc, x.result, err = r.m.tag(ctx, x.upstream, x.repo, tag, x.accept)
	return desc, unknown(err, ociregistry.ErrManifestUnknown)
}

// Bounds of lists.
const (
	maxListed  = 20_000 // the longest real list of tags is of a few thousand
	listBudget = 10 * time.Second
)

// Tags implements [ociregistry.Lister]: what the upstream lists, or what is known.
func (r *registry) Tags(ctx context.Context, _ string, after string) iter.Seq2[string, error] {
	x := exchangeOf(ctx)
	known, err := r.m.Store.repository(x.upstream.Name, x.repo).tags()
	if err != nil {
		return failed[string](err)
	}
	x.result = Hit
	if x.upstream.Mode == Online && !x.upstream.isDown() {
		listed, err := gather(ctx, x, func(ctx context.Context, c ociregistry.Interface) iter.Seq2[string, error] {
			return c.Tags(ctx, x.repo, after)
		})
		if err == nil {
			x.result = Miss
			return sequence(listed)
		}
		x.result = Stale
		r.m.log("tags are listed as known", "upstream", x.upstream.Name, "repository", x.repo, "error", err.Error())
	}
	if len(known) == 0 {
		return failed[string](ociregistry.ErrNameUnknown)
	}
	return sequence(behind(known, after))
}

// Repositories implements [ociregistry.Lister]: what is in the store and may be
// served, by the names that lead to it here. An upstream's own list may be endless.
func (r *registry) Repositories(ctx context.Context, after string) iter.Seq2[string, error] {
	x := exchangeOf(ctx)
	x.result = Hit
	var names []string
	for _, u := range r.m.Upstreams {
		if x.upstream != nil && x.upstream != u {
			continue
		}
		for n, err := range r.m.Store.repositories(u.Name) {
			if err != nil {
				return failed[string](err)
			}
			if !u.allows(n.Name) {
				continue
			}
			if x.upstream != nil {
				names = append(names, n.Name)
				continue
			}
			for _, p := range append([]string{u.Name}, u.Prefixes...) {
				names = append(names, p+"/"+n.Name)
			}
		}
	}
	return sequence(behind(names, after))
}

// gather asks the upstream for a list, within a budget and a bound.
func gather[T any](ctx context.Context, x *exchange, list func(context.Context, ociregistry.Interface) iter.Seq2[T, error]) ([]T, error) {
	ctx, cancel := context.WithTimeout(ctx, listBudget)
	defer cancel()
	c, err := x.upstream.client()
	if err != nil {
		return nil, err
	}
	var all []T
	for v, err := range list(ctx, c) {
		if err != nil {
			return nil, err
		}
		if len(all) == maxListed {
			return nil, errTooLong
		}
		all = append(all, v)
	}
	return all, nil
}

var errTooLong = ociregistry.NewError("the upstream's list is too long", ociregistry.ErrUnsupported.Code(), nil)

func failed[T any](err error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) { yield(*new(T), err) }
}

func sequence[T any](all []T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, v := range all {
			if !yield(v, nil) {
				return
			}
		}
	}
}

// behind sorts names, and leaves out those up to after.
func behind(names []string, after string) []string {
	slices.Sort(names)
	names = slices.Compact(names)
	at, found := slices.BinarySearch(names, after)
	if found {
		at++
	}
	return names[at:]
}
