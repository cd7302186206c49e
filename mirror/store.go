package mirror

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Folders of a store.
const (
	blobsDir    = "blobs"    // as in an OCI image layout
	incomingDir = "incoming" // transfers that are not whole
	refsDir     = "refs"     // what is known of upstreams' names
)

// touchEvery is how far a blob's time of last use may lag behind.
const touchEvery = 10 * time.Minute

// Store is a folder of blobs, named by their digests, and of what upstreams call
// them. Everything in it was verified, is written beside and renamed into place,
// and is found again after any crash. Its methods may be called at once, by
// several processes too. A blob's modification time is when it was last used.
type Store struct {
	root *os.Root
	Now  func() time.Time // nil is time.Now
}

// OpenStore opens the store in a folder, and makes it where there is none. The
// caller closes it.
func OpenStore(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	// A link inside the folder cannot lead out of it.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	s := &Store{root: root}
	if err := s.prepare(); err != nil {
		return nil, fmt.Errorf("store %s: %w", dir, errors.Join(err, root.Close()))
	}
	return s, nil
}

func (s *Store) prepare() error {
	for _, d := range []string{blobsDir + "/sha256", incomingDir, refsDir} {
		if err := s.root.MkdirAll(d, 0o750); err != nil {
			return err
		}
	}
	layout := fmt.Sprintf(`{"imageLayoutVersion":%q}`+"\n", ocispec.ImageLayoutVersion)
	have, err := s.root.ReadFile(ocispec.ImageLayoutFile)
	if errors.Is(err, fs.ErrNotExist) {
		return s.replace(ocispec.ImageLayoutFile, []byte(layout))
	}
	if err == nil && string(have) != layout {
		return fmt.Errorf("%s: %q: not a layout of this version", ocispec.ImageLayoutFile, have)
	}
	return err
}

// Close forgets the folder. Files that were opened stay open.
func (s *Store) Close() { _ = s.root.Close() }

func (s *Store) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// blobPath is where a blob lies. d has been checked: it is no path.
func blobPath(d digest.Digest) string {
	return path.Join(blobsDir, d.Algorithm().String(), d.Encoded())
}

// Open opens a blob, and counts that as its use. It returns fs.ErrNotExist where
// there is none; the caller closes the file.
func (s *Store) Open(d digest.Digest) (*os.File, int64, error) {
	if err := checkDigest(d); err != nil {
		return nil, 0, err
	}
	f, err := s.root.Open(blobPath(d))
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	useFile(f)
	s.touch(d, info.ModTime())
	return f, info.Size(), nil
}

// Size is a blob's size, or fs.ErrNotExist.
func (s *Store) Size(d digest.Digest) (int64, error) {
	if err := checkDigest(d); err != nil {
		return 0, err
	}
	info, err := s.root.Stat(blobPath(d))
	if err != nil {
		return 0, err
	}
	s.touch(d, info.ModTime())
	return info.Size(), nil
}

// touch notes that a blob was used. That it could not is no reason to fail: on a
// disk that can only be read nothing is collected either.
func (s *Store) touch(d digest.Digest, last time.Time) {
	if now := s.now(); now.Sub(last) > touchEvery {
		_ = s.root.Chtimes(blobPath(d), now, now)
	}
}

// read returns a blob that is a manifest. It is verified again, since a manifest
// decides what else is fetched and kept.
func (s *Store) read(d digest.Digest) ([]byte, error) {
	f, size, err := s.Open(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > maxManifest {
		return nil, fmt.Errorf("%s: %d bytes, too many for a manifest", d, size)
	}
	b, err := io.ReadAll(f)
	if err == nil && d.Algorithm().FromBytes(b) != d {
		return nil, fmt.Errorf("%s: damaged on disk: %w", d, errDamaged)
	}
	return b, err
}

var errDamaged = errors.New("digest does not match")

// Put adds a blob that is small enough to be in memory, if it has the digest.
func (s *Store) Put(d digest.Digest, b []byte) error {
	if err := checkDigest(d); err != nil {
		return err
	}
	if d.Algorithm().FromBytes(b) != d {
		return fmt.Errorf("%s: %w", d, errDamaged)
	}
	if _, err := s.Size(d); err == nil {
		return nil
	}
	return s.replace(blobPath(d), b)
}

// drop removes a blob. Whoever has it open reads on.
func (s *Store) drop(d digest.Digest) error { return s.root.Remove(blobPath(d)) }

// replace writes a file whole or not at all, whatever happens meanwhile.
func (s *Store) replace(name string, b []byte) error { return notWritten(s.write(name, b)) }

func (s *Store) write(name string, b []byte) error {
	temporary := path.Join(incomingDir, "tmp-"+rand.Text())
	if err := s.root.MkdirAll(path.Dir(name), 0o750); err != nil {
		return err
	}
	f, err := s.root.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
	if errors.Is(err, fs.ErrNotExist) { // the first file of all
		if err = s.root.MkdirAll(incomingDir, 0o750); err == nil {
			f, err = s.root.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
		}
	}
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = s.rename(temporary, name)
	}
	if err != nil {
		return errors.Join(err, s.root.Remove(temporary))
	}
	return nil
}

// rename puts a file that is on the disk in its place, and the place too: a new
// name survives a crash when its folder was synced.
func (s *Store) rename(from, to string) error {
	if err := s.root.MkdirAll(path.Dir(to), 0o750); err != nil {
		return err
	}
	if err := s.root.Rename(from, to); err != nil {
		return err
	}
	d, err := s.root.Open(path.Dir(to))
	if err != nil {
		return err
	}
	defer d.Close()
	return syncFolder(d)
}

// Probe reports why nothing can be written, or nil.
func (s *Store) Probe() error {
	name := path.Join(incomingDir, "probe-"+rand.Text())
	f, err := s.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), s.root.Remove(name))
}
