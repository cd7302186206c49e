package mirror

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Annotations that say what an archive's image is called: containerd's is the whole
// reference, and so is ours under the OCI name, by which skopeo and oras choose.
const (
	containerdName = "io.containerd.image.name"
	ociName        = ocispec.AnnotationRefName
)

// Known lists the images that have a tag in the store, of the mirror's upstreams.
func (m *Mirror) Known() ([]Reference, error) {
	var all []Reference
	for _, u := range m.Upstreams {
		for r, err := range m.Store.repositories(u.Name) {
			if err != nil {
				return nil, err
			}
			tags, err := r.tags()
			if err != nil {
				return nil, err
			}
			for _, t := range tags {
				all = append(all, Reference{Upstream: u.Name, Repository: r.Name, Tag: t})
			}
		}
	}
	return all, nil
}

// Export writes images as an OCI image layout in a tar archive. Of an index it
// takes the platforms that are in the store; an image that is not whole is an error.
func (m *Mirror) Export(ctx context.Context, to io.Writer, images []Reference) error {
	w := tar.NewWriter(to)
	e := export{m: m, w: w, done: map[digest.Digest]bool{}}
	if err := e.file(ocispec.ImageLayoutFile, fmt.Appendf(nil, `{"imageLayoutVersion":%q}`, ocispec.ImageLayoutVersion)); err != nil {
		return err
	}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	index.SchemaVersion = 2
	for _, r := range images {
		if err := ctx.Err(); err != nil {
			return err
		}
		e.entries, e.from = &index.Manifests, r
		desc, err := e.image(ctx, r)
		if err != nil {
			return fmt.Errorf("%s: %w", r, err)
		}
		e.entry(desc, r)
	}
	b, err := json.Marshal(index)
	if err != nil {
		return err
	}
	return errors.Join(e.file(ocispec.ImageIndexFile, b), w.Close())
}

type export struct {
	m       *Mirror
	w       *tar.Writer
	done    map[digest.Digest]bool
	entries *[]ocispec.Descriptor
	from    Reference
}

// entry lists a manifest in the archive's index, under the name it is pulled by.
func (e *export) entry(d ocispec.Descriptor, r Reference) {
	*e.entries = append(*e.entries, ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size,
		Annotations: map[string]string{containerdName: r.String(), ociName: r.String()}})
}

func (e *export) file(name string, b []byte) error {
	if err := e.w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(b)), Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err := e.w.Write(b)
	return err
}

func (e *export) image(ctx context.Context, r Reference) (ocispec.Descriptor, error) {
	u, err := e.m.find(r)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	offline := Mirror{Store: e.m.Store}
	desc, err := offline.resolve(ctx, &Upstream{Name: u.Name, Mode: Offline, Pins: u.Pins}, r)
	if err != nil {
		return desc, err
	}
	return desc, e.manifest(e.m.Store.repository(u.Name, r.Repository), desc.Digest)
}

func (e *export) manifest(r repository, d digest.Digest) error {
	if e.done[d] {
		return nil
	}
	v, err := r.manifest(d)
	if err != nil {
		return err
	}
	text, err := r.store.read(d)
	if err != nil {
		return err
	}
	man, err := readManifest(v.Descriptor.MediaType, text)
	if err != nil {
		return err
	}
	e.done[d] = true
	for _, b := range man.blobs() {
		if err := e.blob(b); err != nil {
			return err
		}
	}
	about, err := r.referrers(d, "")
	if err != nil {
		return err
	}
	for _, signature := range about {
		if e.done[signature.Digest] {
			continue
		}
		if err := e.manifest(r, signature.Digest); err != nil {
			return err
		}
		e.entry(signature, Reference{Upstream: e.from.Upstream, Repository: e.from.Repository, Digest: signature.Digest})
	}
	found := 0
	for _, child := range man.Manifests {
		err := e.manifest(r, child.Digest)
		if err == nil {
			found++
		} else if !errors.Is(err, fs.ErrNotExist) { // a platform that was never pulled
			return err
		}
	}
	if len(man.Manifests) > 0 && found == 0 {
		return fmt.Errorf("%s: none of its %d images is in the store: preload them first", d, len(man.Manifests))
	}
	return e.file(blobPath(d), text)
}

func (e *export) blob(b ocispec.Descriptor) error {
	if e.done[b.Digest] {
		return nil
	}
	f, size, err := e.m.Store.Open(b.Digest)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not in the store: preload the image first", b.Digest)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	e.done[b.Digest] = true
	if err := e.w.WriteHeader(&tar.Header{Name: blobPath(b.Digest), Mode: 0o644, Size: size, Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err = io.Copy(e.w, f)
	return err
}

// Imported is an image that an archive held, and why it is not mirrored if it is not.
type Imported struct {
	Image Reference
	Err   error
}

// maxArchived bounds the entries of an archive.
const maxArchived = 1 << 20

// Import reads an archive that Export or another program wrote: an OCI image
// layout in a tar archive, not compressed. Every blob is verified; the images that
// the mirror's upstreams may serve are kept. Nothing outside the store is written,
// whatever the archive calls its entries.
func (m *Mirror) Import(ctx context.Context, from io.Reader, keep bool) ([]Imported, error) {
	start := bufio.NewReader(from)
	if magic, _ := start.Peek(2); string(magic) == "\x1f\x8b" {
		return nil, errors.New("archive: compressed; unpack it first")
	}
	r := tar.NewReader(start)
	var index []byte
	for n := 0; ; n++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("archive: %w", err)
		}
		if n > maxArchived || ctx.Err() != nil {
			return nil, errors.Join(ctx.Err(), fmt.Errorf("archive: stopped after %d entries", n))
		}
		switch name := path.Clean(h.Name); {
		case h.Typeflag == tar.TypeDir, name == ocispec.ImageLayoutFile, name == "manifest.json", name == "repositories":
		case h.Typeflag != tar.TypeReg:
			return nil, fmt.Errorf("archive: %q is neither a file nor a folder", h.Name)
		case name == ocispec.ImageIndexFile:
			if index, err = io.ReadAll(io.LimitReader(r, maxManifest+1)); err != nil {
				return nil, fmt.Errorf("archive: %w", err)
			}
		default:
			if err := m.importBlob(name, h.Size, r); err != nil {
				return nil, fmt.Errorf("archive: %q: %w", h.Name, err)
			}
		}
	}
	if index == nil {
		return nil, errors.New("archive: no index.json: not an OCI image layout")
	}
	return m.importIndex(index, keep)
}

func (m *Mirror) importBlob(name string, size int64, from io.Reader) error {
	parts := strings.Split(name, "/")
	if len(parts) != 3 || parts[0] != blobsDir {
		return errors.New("not part of an OCI image layout")
	}
	d := digest.NewDigestFromEncoded(digest.Algorithm(parts[1]), parts[2])
	if err := checkDigest(d); err != nil {
		return err
	}
	if _, err := m.Store.Size(d); err == nil {
		return nil
	}
	if err := m.makeRoom(size); err != nil {
		return err
	}
	in, err := m.Store.receive(d)
	if err != nil {
		return err
	}
	defer in.file.Close()
	if err := in.skip(from); err != nil {
		return errors.Join(err, in.discard())
	}
	if _, err := io.Copy(in, from); err != nil {
		return err
	}
	if err := in.commit(); err != nil {
		return errors.Join(err, in.discard())
	}
	return nil
}

func (m *Mirror) importIndex(text []byte, keep bool) ([]Imported, error) {
	man, err := readManifest(ocispec.MediaTypeImageIndex, text)
	if err != nil {
		return nil, fmt.Errorf("archive: index.json: %w", err)
	}
	var all []Imported
	for _, d := range man.Manifests {
		r, err := ParseReference(d.Annotations[containerdName])
		if err != nil {
			r, err = ParseReference(d.Annotations[ociName])
		}
		if err == nil {
			err = m.importImage(r, d, keep)
		} else {
			err = fmt.Errorf("%s: is called by no registry's name", d.Digest)
		}
		all = append(all, Imported{r, err})
	}
	return all, nil
}

func (m *Mirror) importImage(r Reference, d ocispec.Descriptor, keep bool) error {
	u, err := m.find(r)
	if err != nil {
		return err
	}
	if err := (&exchange{upstream: u, repo: r.Repository}).permit(); err != nil {
		return err
	}
	if r.Digest != "" && r.Digest != d.Digest {
		return fmt.Errorf("is %s", d.Digest)
	}
	if pin, ok := u.Pins[r.Repository+":"+r.Tag]; ok && pin != d.Digest {
		return fmt.Errorf("is %s, and pinned to %s", d.Digest, pin)
	}
	repo := m.Store.repository(u.Name, r.Repository)
	desc, refers, err := repo.adopt(d.Digest, d.MediaType, 0)
	if err != nil {
		return err
	}
	if r.Tag != "" {
		if err := repo.saveTag(r.Tag, "", ref{Descriptor: desc, Checked: m.Store.now()}); err != nil {
			return err
		}
	}
	if keep && !refers { // what refers to an image stays and goes with it
		return repo.keep(desc)
	}
	return nil
}

// adopt makes a manifest that is a blob of the store one of the repository, with
// those below it that are there. Its blobs have to be. It tells whether the
// manifest refers to another that is in the store.
func (r repository) adopt(d digest.Digest, mediaType string, depth int) (desc ocispec.Descriptor, refers bool, err error) {
	if depth > maxDepth {
		return desc, false, fmt.Errorf("%s: too deep an index", d)
	}
	text, err := r.store.read(d)
	if err != nil {
		return desc, false, fmt.Errorf("manifest %s: %w", d, err)
	}
	man, err := readManifest(mediaType, text)
	if err != nil {
		return desc, false, err
	}
	for _, b := range man.blobs() {
		if size, err := r.store.Size(b.Digest); err != nil || size != b.Size {
			return desc, false, fmt.Errorf("%s: not whole: %s of %d bytes is lacking", d, b.Digest, b.Size)
		}
	}
	found := 0
	for _, child := range man.Manifests {
		if _, err := r.store.Size(child.Digest); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if _, _, err := r.adopt(child.Digest, child.MediaType, depth+1); err != nil {
			return desc, false, err
		}
		found++
	}
	if len(man.Manifests) > 0 && found == 0 {
		return desc, false, fmt.Errorf("%s: none of its %d images is there", d, len(man.Manifests))
	}
	if man.Subject != nil {
		_, err := r.store.Size(man.Subject.Digest)
		refers = err == nil
	}
	desc, err = r.saveManifest(d, man, text)
	return desc, refers, err
}
