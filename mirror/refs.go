package mirror

import (
	"encoding/json"
	"errors"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Folders beside those of repositories below one: no part of a repository's name
// begins with an underscore.
const (
	tagsDir      = "_tags"      // TAG, or TAG+LETTERS for clients that cannot read what it is
	manifestsDir = "_manifests" // the manifests that the repository has
	referrersDir = "_referrers" // SUBJECT/MANIFEST
	keptDir      = "_kept"      // what is never collected
)

// ref is what is known of a name: the manifest behind it, and when the upstream
// said so last.
type ref struct {
	Descriptor ocispec.Descriptor `json:"descriptor"`
	Checked    time.Time          `json:"checked,omitzero"`
	wide       bool               // it is for clients that read everything
}

// repository is a repository of an upstream, as the store knows it.
type repository struct {
	store *Store
	dir   string
}

// repository returns what is known of one. Its name has been checked, and the
// upstream's is of the configuration.
func (s *Store) repository(upstream, name string) repository {
	return repository{s, path.Join(refsDir, fileName(upstream), name)}
}

// fileName is a host for the name of a folder: a port's colon is none everywhere.
func fileName(host string) string { return strings.ReplaceAll(host, ":", "+") }

func digestName(d digest.Digest) string { return d.Algorithm().String() + "-" + d.Encoded() }

func (r repository) load(name ...string) (ref, error) {
	var v ref
	b, err := r.store.root.ReadFile(path.Join(r.dir, path.Join(name...)))
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	return v, err
}

func (r repository) save(v ref, name ...string) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return r.store.replace(path.Join(r.dir, path.Join(name...)), append(b, '\n'))
}

// tag returns what a tag was for clients that can read a. What the upstream
// gives to clients that read everything comes first.
func (r repository) tag(tag string, a Accept) (ref, error) {
	v, err := r.load(tagsDir, tag)
	v.wide = true
	if err == nil && a.allows(v.Descriptor.MediaType) || a == "" {
		return v, err
	}
	return r.load(tagsDir, tag+"+"+string(a))
}

// saveTag keeps what the upstream gave to a client that can read a.
func (r repository) saveTag(tag string, a Accept, v ref) error {
	if a != "" {
		tag += "+" + string(a)
	}
	return r.save(v, tagsDir, tag)
}

func (r repository) manifest(d digest.Digest) (ref, error) {
	return r.load(manifestsDir, digestName(d))
}

// saveManifest adds a manifest, whose text is verified, to the store and to the
// repository. A subject learns of it, which need not be there.
func (r repository) saveManifest(d digest.Digest, m *manifest, text []byte) (ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{MediaType: m.MediaType, Digest: d, Size: int64(len(text))}
	if err := r.store.Put(d, text); err != nil {
		return desc, err
	}
	if m.Subject != nil {
		v := ref{Descriptor: m.describe(d, desc.Size)}
		if err := r.save(v, referrersDir, digestName(m.Subject.Digest), digestName(d)); err != nil {
			return desc, err
		}
	}
	return desc, r.save(ref{Descriptor: desc}, manifestsDir, digestName(d))
}

// keep makes a manifest, and everything that it needs, stay whatever the size.
func (r repository) keep(desc ocispec.Descriptor) error {
	return r.save(ref{Descriptor: desc}, keptDir, digestName(desc.Digest))
}

// forget undoes keep.
func (r repository) forget(d digest.Digest) error {
	return r.store.root.Remove(path.Join(r.dir, keptDir, digestName(d)))
}

// list returns the names in a folder of the repository, sorted.
func (r repository) list(name ...string) ([]string, error) {
	entries, err := fs.ReadDir(r.store.root.FS(), path.Join(r.dir, path.Join(name...)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// tags lists the tags that are known, without the forms for other clients.
func (r repository) tags() ([]string, error) {
	names, err := r.list(tagsDir)
	for i, n := range names {
		names[i], _, _ = strings.Cut(n, "+")
	}
	slices.Sort(names)
	return slices.Compact(names), err
}

// referrers lists what refers to d, of the given kind unless that is empty.
func (r repository) referrers(d digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	names, err := r.list(referrersDir, digestName(d))
	if err != nil {
		return nil, err
	}
	var found []ocispec.Descriptor
	for _, n := range names {
		v, err := r.load(referrersDir, digestName(d), n)
		if err != nil {
			return nil, err
		}
		if artifactType == "" || v.Descriptor.ArtifactType == artifactType {
			found = append(found, v.Descriptor)
		}
	}
	return found, nil
}

// named is a repository with its name.
type named struct {
	Upstream, Name string // Upstream is the name of a folder
	repository
}

// repositories walks those of one upstream, or of all where upstream is empty.
func (s *Store) repositories(upstream string) iter.Seq2[named, error] {
	return func(yield func(named, error) bool) {
		top := path.Join(refsDir, fileName(upstream))
		last := ""
		err := fs.WalkDir(s.root.FS(), top, func(p string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // collected meanwhile, or an upstream that nothing was asked of
			}
			if err != nil || !e.IsDir() || !strings.HasPrefix(e.Name(), "_") {
				return err
			}
			if dir := path.Dir(p); dir != last {
				last = dir
				host, name, _ := strings.Cut(strings.TrimPrefix(dir, refsDir+"/"), "/")
				if !yield(named{strings.ReplaceAll(host, "+", ":"), name, repository{s, dir}}, nil) {
					return fs.SkipAll
				}
			}
			return fs.SkipDir
		})
		if err != nil {
			yield(named{}, err)
		}
	}
}
