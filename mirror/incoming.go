package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"

	"github.com/opencontainers/go-digest"
)

// incoming is a blob on its way into the store: the bytes so far, in a file that
// is taken up again by whoever needs the blob next.
type incoming struct {
	store  *Store
	digest digest.Digest
	name   string
	file   *os.File
	hash   hash.Hash
	have   int64
}

// receive takes up a blob's transfer. A file that another process writes to is
// left to it, and written beside.
func (s *Store) receive(d digest.Digest) (*incoming, error) {
	if err := checkDigest(d); err != nil {
		return nil, err
	}
	in := &incoming{store: s, digest: d, hash: newHash(d), name: path.Join(incomingDir, digestName(d))}
	var err error
	if in.file, err = s.own(in.name); err != nil {
		in.name += fmt.Sprintf("-%d", os.Getpid())
		if in.file, err = s.own(in.name); err != nil {
			return nil, notWritten(err)
		}
	}
	if in.have, err = io.Copy(in.hash, in.file); err != nil {
		return nil, notWritten(errors.Join(err, in.file.Close()))
	}
	return in, nil
}

// own opens a file that nobody else writes to. The one that was opened may have
// become a blob before it was locked, and must not be written to then.
func (s *Store) own(name string) (*os.File, error) {
	f, err := s.root.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, err
	}
	err = lockFile(f)
	if err == nil {
		var mine, there os.FileInfo
		if mine, err = f.Stat(); err == nil {
			there, err = s.root.Stat(name)
		}
		if err == nil && !os.SameFile(mine, there) {
			err = fmt.Errorf("%s: taken", name)
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Write appends, and hashes what it appended.
func (in *incoming) Write(b []byte) (int, error) {
	n, err := in.file.WriteAt(b, in.have)
	in.hash.Write(b[:n])
	in.have += int64(n)
	return n, notWritten(err)
}

// errDiffers is an upstream that sends other bytes under the same digest.
var errDiffers = errors.New("other bytes than before")

// skip reads from the beginning of the blob up to where the transfer stands. The
// bytes must be those that were received before, for clients have them already.
func (in *incoming) skip(r io.Reader) error {
	theirs, ours := make([]byte, 32<<10), make([]byte, 32<<10)
	for at := int64(0); at < in.have; {
		n := min(int64(len(theirs)), in.have-at)
		if _, err := io.ReadFull(r, theirs[:n]); err != nil {
			return err
		}
		if _, err := in.file.ReadAt(ours[:n], at); err != nil {
			return err
		}
		if !bytes.Equal(theirs[:n], ours[:n]) {
			return errDiffers
		}
		at += n
	}
	return nil
}

// commit makes it a blob of the store, if it is whole. The file stays open for
// those who read it; the caller closes it.
func (in *incoming) commit() error {
	if got := digest.NewDigest(in.digest.Algorithm(), in.hash); got != in.digest {
		return fmt.Errorf("%s: received %s: %w", in.digest, got, errDamaged)
	}
	err := in.file.Sync()
	if err == nil {
		err = in.store.rename(in.name, blobPath(in.digest))
	}
	return notWritten(err)
}

// discard forgets what was received.
func (in *incoming) discard() error { return in.store.root.Remove(in.name) }
