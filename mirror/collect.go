package mirror

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// youngerThan is what is never collected: a node that pulled a manifest will
	// come for its layers.
	youngerThan = time.Hour

	// abandoned is when nobody will resume a transfer any more.
	abandoned = 24 * time.Hour

	// overhead is counted for each blob beside its size: a folder's entry, and the
	// files that name it. So a flood of tiny blobs reaches the limit as well.
	overhead = 16 << 10
)

// Collection is what a collection took, or would take.
type Collection struct {
	Before, After int64           // bytes on disk
	Taken         []digest.Digest // least recently used first
	Abandoned     int             // transfers
	Kept          int             // blobs of images that are to stay
}

// held is a blob as the collector sees it.
type held struct {
	digest digest.Digest
	size   int64
	used   time.Time
}

// blobs lists what is in the store.
func (s *Store) blobs() ([]held, error) {
	var all []held
	err := fs.WalkDir(s.root.FS(), blobsDir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		d := digest.NewDigestFromEncoded(digest.Algorithm(path.Base(path.Dir(p))), e.Name())
		if err == nil && checkDigest(d) == nil {
			all = append(all, held{d, info.Size(), info.ModTime()})
		}
		return err
	})
	return all, err
}

// Collect takes the least recently used blobs until no more than limit bytes are
// left; of what is kept, in use or younger than an hour it takes nothing. When
// dry it only says what it would take. Other processes may go on meanwhile.
func (s *Store) Collect(limit int64, dry bool) (Collection, error) {
	var c Collection
	all, err := s.blobs()
	if err != nil {
		return c, err
	}
	kept, err := s.kept()
	if err != nil {
		return c, err
	}
	partial, err := s.sweepIncoming(dry, &c)
	if err != nil {
		return c, err
	}
	c.Before, c.Kept = partial, len(kept)
	for _, b := range all {
		c.Before += b.size + overhead
	}
	c.After = c.Before
	slices.SortFunc(all, func(a, b held) int { return a.used.Compare(b.used) })
	for _, b := range all {
		if c.After <= limit || s.now().Sub(b.used) < youngerThan {
			break
		}
		if kept[b.digest] {
			continue
		}
		taken, err := s.take(b.digest, dry)
		if err != nil {
			return c, err
		}
		if taken {
			c.Taken = append(c.Taken, b.digest)
			c.After -= b.size + overhead
		}
	}
	if len(c.Taken) == 0 || dry {
		return c, nil
	}
	return c, s.prune()
}

// take removes a blob that nobody has open.
func (s *Store) take(d digest.Digest, dry bool) (bool, error) {
	f, err := s.root.Open(blobPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if lockFile(f) != nil {
		return false, nil
	}
	if dry {
		return true, nil
	}
	return true, s.drop(d)
}

// sweepIncoming removes transfers that nobody went on with, and returns the size
// of the others.
func (s *Store) sweepIncoming(dry bool, c *Collection) (size int64, err error) {
	entries, err := fs.ReadDir(s.root.FS(), incomingDir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if s.now().Sub(info.ModTime()) < abandoned {
			size += info.Size()
			continue
		}
		c.Abandoned++
		if !dry {
			if err := s.root.Remove(path.Join(incomingDir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return 0, err
			}
		}
	}
	return size, nil
}

// kept is what images that are to stay need.
func (s *Store) kept() (map[digest.Digest]bool, error) {
	found := map[digest.Digest]bool{}
	for r, err := range s.repositories("") {
		if err != nil {
			return nil, err
		}
		roots, err := r.list(keptDir)
		if err != nil {
			return nil, err
		}
		for _, name := range roots {
			v, err := r.load(keptDir, name)
			if err != nil {
				return nil, err
			}
			if err := r.reach(v.Descriptor.Digest, found); err != nil {
				return nil, err
			}
		}
	}
	return found, nil
}

// reach adds a manifest, what it needs and what refers to it. What is not here is
// not needed: an index may have been preloaded for one platform only.
func (r repository) reach(d digest.Digest, found map[digest.Digest]bool) error {
	if found[d] {
		return nil
	}
	v, err := r.manifest(d)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	text, err := r.store.read(d)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	m, err := readManifest(v.Descriptor.MediaType, text)
	if err != nil {
		return err
	}
	found[d] = true
	for _, b := range m.blobs() {
		found[b.Digest] = true
	}
	about, err := r.referrers(d, "")
	if err != nil {
		return err
	}
	for _, child := range append(about, m.Manifests...) {
		if err := r.reach(child.Digest, found); err != nil {
			return err
		}
	}
	return nil
}

// prune removes names whose manifest is gone.
func (s *Store) prune() error {
	for r, err := range s.repositories("") {
		if err != nil {
			return err
		}
		for _, dir := range []string{tagsDir, manifestsDir} {
			names, err := r.list(dir)
			if err != nil {
				return err
			}
			for _, name := range names {
				v, err := r.load(dir, name)
				if err == nil {
					_, err = s.root.Stat(blobPath(v.Descriptor.Digest))
				}
				if errors.Is(err, fs.ErrNotExist) {
					err = s.root.Remove(path.Join(r.dir, dir, name))
				}
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
		}
	}
	return nil
}

// defaultMaxBlob is larger than the layers of images with models in them.
const defaultMaxBlob = 64 << 30

func (m *Mirror) maxBlob() int64 {
	if m.MaxBlob > 0 {
		return m.MaxBlob
	}
	return defaultMaxBlob
}

var (
	errFull   = errors.New("the mirror's store is full of what it may not take")
	errTooBig = errors.New("larger than the mirror takes")
)

// The measured size of the store ages, since other processes write to it too. A
// full one is not walked again for every blob that is asked for.
const (
	measureEvery = time.Minute
	retryEvery   = 5 * time.Second
)

// space is how much of the store is used, about.
type space struct {
	mu       sync.Mutex
	used     int64
	measured time.Time
}

// makeRoom collects what has to go for a blob of a size, or refuses it.
func (m *Mirror) makeRoom(size int64) error {
	if size > m.maxBlob() {
		return errTooBig
	}
	if m.MaxBytes <= 0 {
		return nil
	}
	m.space.mu.Lock()
	defer m.space.mu.Unlock()
	sp := &m.space
	age := m.Store.now().Sub(sp.measured)
	if age > measureEvery || age > retryEvery && sp.used+size+overhead > m.MaxBytes {
		c, err := m.Store.Collect(m.MaxBytes-size-overhead, false)
		if err != nil {
			return notWritten(err)
		}
		sp.used, sp.measured = c.After, m.Store.now()
		if len(c.Taken) > 0 {
			m.log("collected", "blobs", len(c.Taken), "before", c.Before, "after", c.After)
		}
	}
	if sp.used+size+overhead > m.MaxBytes {
		return notWritten(errFull)
	}
	sp.used += size + overhead
	return nil
}

// Used is how many bytes of a store with a limit are used, as last measured.
func (m *Mirror) Used() int64 {
	m.space.mu.Lock()
	defer m.space.mu.Unlock()
	return m.space.used
}
