package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/opencontainers/go-digest"
)

// Verified is what Verify found.
type Verified struct {
	Blobs   int
	Bytes   int64
	Damaged []digest.Digest
}

// Verify hashes every blob anew. Those that are not what they are called it
// removes, if asked to, so that they are fetched again.
func (s *Store) Verify(ctx context.Context, remove bool) (Verified, error) {
	var v Verified
	all, err := s.blobs()
	if err != nil {
		return v, err
	}
	buf := make([]byte, 1<<20)
	for _, b := range all {
		if err := ctx.Err(); err != nil {
			return v, err
		}
		ok, err := s.intact(b.digest, buf)
		if errors.Is(err, fs.ErrNotExist) {
			continue // collected meanwhile
		}
		if err != nil {
			return v, fmt.Errorf("%s: %w", b.digest, err)
		}
		v.Blobs++
		v.Bytes += b.size
		if ok {
			continue
		}
		v.Damaged = append(v.Damaged, b.digest)
		if remove {
			if err := s.drop(b.digest); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return v, err
			}
		}
	}
	return v, nil
}

func (s *Store) intact(d digest.Digest, buf []byte) (bool, error) {
	f, err := s.root.Open(blobPath(d)) // not a use
	if err != nil {
		return false, err
	}
	defer f.Close()
	h := newHash(d)
	if _, err := io.CopyBuffer(h, onlyReader{f}, buf); err != nil {
		return false, err
	}
	return digest.NewDigest(d.Algorithm(), h) == d, nil
}

// onlyReader hides what would make a copy choose a buffer of its own.
type onlyReader struct{ io.Reader }
