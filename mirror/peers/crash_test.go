package peers

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// TestCrashes kills the mirror in the middle of what it does, again and again. What
// it has afterwards is right, and what it lacks it fetches.
func TestCrashes(t *testing.T) {
	const crashes = 20
	o := newOrigin(t)
	var all []images
	for n := range 4 {
		all = append(all, o.pause(t, fmt.Sprintf("3.%d", n), uint64(100*n)))
	}
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(1, 2))
	for n := range crashes {
		i := o.pause(t, fmt.Sprintf("new-%d", n), uint64(1000+n))
		m := startMirror(t, dir, o)
		client := &http.Client{Transport: trusting(t, m)}
		var running sync.WaitGroup
		for _, image := range append(all, i) {
			running.Go(func() {
				b, err := get(client, fmt.Sprintf("https://%s/v2/%s/blobs/%s", m.address, image.repo, image.layer.Digest))
				if err == nil && !bytes.Equal(b, image.content) {
					t.Errorf("%s: %d bad bytes", image.tag, len(b))
				}
			})
			running.Go(func() {
				_, _ = get(client, fmt.Sprintf("https://%s/v2/%s/manifests/%s", m.address, image.repo, image.tag))
			})
		}
		time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond)
		m.kill()
		running.Wait()
		if out, err := run(t.Context(), program, "mirror", "verify", "-c", filepath.Join(dir, "mirror.yaml")); err != nil {
			t.Fatalf("after crash %d: %v\n%s", n, err, out)
		}
		if all = append(all, i); len(all) > 8 {
			all = all[1:]
		}
	}
	m := startMirror(t, dir, o)
	for _, i := range all {
		if d, err := pullByORAS(t, t.Context(), m, i); err != nil || d != i.index.Digest {
			t.Errorf("%s: %s, %v", i.tag, d, err)
		}
	}
}

func get(c *http.Client, at string) ([]byte, error) {
	resp, err := c.Get(at)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, b)
	}
	return b, err
}
