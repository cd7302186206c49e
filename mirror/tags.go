package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// How long a client waits for what the upstream says of a tag.
const (
	tagBudget  = 3 * time.Second  // where the tag is known
	askTimeout = 30 * time.Second // where it is not; and how long the asking goes on behind the client
)

// tag is the manifest behind a tag for a client that can read a.
func (m *Mirror) tag(ctx context.Context, u *Upstream, repo, tag string, a Accept) (ocispec.Descriptor, Result, error) {
	if d, ok := u.Pins[repo+":"+tag]; ok {
		desc, result, err := m.manifest(ctx, u, repo, d)
		if err == nil && !a.allows(desc.MediaType) {
			err = errNotAcceptable(desc)
		}
		return desc, result, err
	}
	known, err := m.Store.repository(u.Name, repo).tag(tag, a)
	if err == nil {
		_, err = m.Store.Size(known.Descriptor.Digest)
	}
	have := err == nil
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return ocispec.Descriptor{}, Failed, err
	case u.Mode == Offline && !have:
		return ocispec.Descriptor{}, Refused, ociregistry.ErrManifestUnknown
	case have && (u.Mode != Online || m.Store.now().Sub(known.Checked) < u.Recheck):
		return known.Descriptor, Hit, nil
	case have && u.isDown():
		return known.Descriptor, Stale, nil
	}
	desc, err := m.refresh(ctx, u, repo, tag, a, known, have)
	switch {
	case err == nil && have && desc.Digest == known.Descriptor.Digest:
		return desc, Hit, nil
	case err == nil:
		return desc, Miss, nil
	case have && !gone(err) && ctx.Err() == nil:
		m.log("tag is served as last known", "upstream", u.Name, "repository", repo, "tag", tag, "error", err.Error())
		return known.Descriptor, Stale, nil
	}
	return desc, Failed, err
}

func errNotAcceptable(d ocispec.Descriptor) error {
	return ociregistry.NewError("known only as "+d.MediaType+", which was not asked for", ociregistry.ErrManifestUnknown.Code(), nil)
}

var errBudget = fmt.Errorf("no answer within %s", tagBudget)

// refresh asks the upstream, once for all clients that want to know the same. One
// that can be given what is known waits no longer than the budget.
func (m *Mirror) refresh(ctx context.Context, u *Upstream, repo, tag string, a Accept, known ref, have bool) (ocispec.Descriptor, error) {
	key := fmt.Sprintf("%s/%s:%s+%s", u.Name, repo, tag, a)
	answer := m.asking.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
		defer cancel()
		return m.askTag(ctx, u, repo, tag, a, known, have)
	})
	var budget <-chan time.Time
	if have {
		t := time.NewTimer(tagBudget)
		defer t.Stop()
		budget = t.C
	}
	select {
	case r := <-answer:
		if r.Err != nil {
			if status(r.Err) == 0 {
				u.rest()
			}
			return ocispec.Descriptor{}, r.Err
		}
		return r.Val.(ocispec.Descriptor), nil
	case <-budget:
		u.rest()
		return ocispec.Descriptor{}, errBudget
	case <-ctx.Done():
		return ocispec.Descriptor{}, ctx.Err()
	}
}

// askTag asks which manifest a tag is, and fetches that if it is new.
func (m *Mirror) askTag(ctx context.Context, u *Upstream, repo, tag string, a Accept, known ref, have bool) (ocispec.Descriptor, error) {
	r := m.Store.repository(u.Name, repo)
	if have {
		resp, err := u.ask(ctx, http.MethodHead, repo, "manifests", tag, http.Header{"Accept": {a.header()}})
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		resp.Body.Close()
		if digest.Digest(resp.Header.Get("Docker-Content-Digest")) == known.Descriptor.Digest {
			return known.Descriptor, m.saveTag(r, tag, known.asked(a), known.Descriptor)
		}
	}
	desc, err := m.fetchManifest(ctx, u, repo, tag, "", a)
	if err != nil {
		return desc, err
	}
	if !a.allows(desc.MediaType) {
		return desc, errNotAcceptable(desc)
	}
	return desc, m.saveTag(r, tag, a, desc)
}

// saveTag keeps what a tag is now, if it can: that it cannot is no reason not to
// say what it is.
func (m *Mirror) saveTag(r repository, tag string, a Accept, desc ocispec.Descriptor) error {
	err := r.saveTag(tag, a, ref{Descriptor: desc, Checked: m.Store.now()})
	if m.unwritable(err) {
		m.log("a tag could not be written", "tag", tag, "error", err.Error())
		return nil
	}
	return err
}

// asked is under which clients' name a known tag is kept: that of those who read
// everything, if it is there.
func (v ref) asked(a Accept) Accept {
	if v.wide {
		return ""
	}
	return a
}

// manifest makes sure that a manifest is in the store, and that the repository
// has it: a blob of another repository is not served as one.
func (m *Mirror) manifest(ctx context.Context, u *Upstream, repo string, d digest.Digest) (ocispec.Descriptor, Result, error) {
	known, err := m.Store.repository(u.Name, repo).manifest(d)
	if err == nil {
		_, err = m.Store.Size(d)
	}
	switch {
	case err == nil:
		return known.Descriptor, Hit, nil
	case !errors.Is(err, fs.ErrNotExist):
		return ocispec.Descriptor{}, Failed, err
	case u.Mode == Offline:
		return ocispec.Descriptor{}, Refused, ociregistry.ErrManifestUnknown
	}
	answer := m.asking.DoChan(u.Name+"/"+repo+"@"+d.String(), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
		defer cancel()
		return m.fetchManifest(ctx, u, repo, d.String(), d, "")
	})
	select {
	case r := <-answer:
		if r.Err != nil {
			return ocispec.Descriptor{}, Failed, r.Err
		}
		return r.Val.(ocispec.Descriptor), Miss, nil
	case <-ctx.Done():
		return ocispec.Descriptor{}, Failed, ctx.Err()
	}
}

// fetchManifest fetches, verifies and keeps a manifest. want is empty for a tag,
// whose digest the upstream may say and the text decides.
func (m *Mirror) fetchManifest(ctx context.Context, u *Upstream, repo, name string, want digest.Digest, a Accept) (ocispec.Descriptor, error) {
	resp, err := u.ask(ctx, http.MethodGet, repo, "manifests", name, http.Header{"Accept": {a.header()}})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer resp.Body.Close()
	if resp.ContentLength > maxManifest {
		return ocispec.Descriptor{}, fmt.Errorf("manifest: %d bytes, more than %d", resp.ContentLength, maxManifest)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	if err != nil {
		return ocispec.Descriptor{}, &upstreamError{u.Name, 0, err}
	}
	u.Counts.fetched.Add(uint64(len(text)))
	if want == "" {
		want = digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	}
	if want == "" {
		want = digest.FromBytes(text)
	}
	if err := checkDigest(want); err != nil {
		return ocispec.Descriptor{}, err
	}
	if got := want.Algorithm().FromBytes(text); got != want {
		u.Counts.discarded.Add(1)
		return ocispec.Descriptor{}, fmt.Errorf("%s of %s/%s: received %s: %w", want, u.Name, repo, got, errDamaged)
	}
	man, err := readManifest(resp.Header.Get("Content-Type"), text)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%s/%s@%s: %w", u.Name, repo, want, err)
	}
	desc, err := m.Store.repository(u.Name, repo).saveManifest(want, man, text)
	if m.unwritable(err) {
		m.log("a manifest could not be written", "digest", want.String(), "error", err.Error())
		m.remembered.add(want, text)
		err = nil
	}
	return desc, err
}
