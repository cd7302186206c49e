package peers

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/opencontainers/go-digest"
	"oras.land/oras-go/v2/content/oci"
)

// TestArchivesAreReadByOthers: what export writes is an OCI image layout for those
// who have to do without a mirror, and import takes what skopeo wrote.
func TestArchivesAreReadByOthers(t *testing.T) {
	o := newOrigin(t)
	i := o.pause(t, "3.6", 1)
	dir := t.TempDir()
	startMirror(t, dir, o)
	config, archive := filepath.Join(dir, "mirror.yaml"), filepath.Join(dir, "images.tar")
	name := mcr + "/" + i.repo + ":" + i.tag
	for _, args := range [][]string{{"preload", "-c", config, name}, {"export", "-c", config, name, "--to", archive}} {
		if out, err := run(t.Context(), program, append([]string{"mirror"}, args...)...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	t.Run("skopeo", func(t *testing.T) {
		to := filepath.Join(t.TempDir(), "layout")
		if _, err := run(t.Context(), need(t, "skopeo"), "--insecure-policy", "copy", "--all", "oci-archive:"+archive+":"+name, "oci:"+to+":x"); err != nil {
			t.Fatal(err)
		}
		isWhole(t, to)
	})
	t.Run("crane", func(t *testing.T) {
		to := t.TempDir()
		if out, err := run(t.Context(), "tar", "-xf", archive, "-C", to); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		isWhole(t, to)
	})
	t.Run("oras", func(t *testing.T) {
		store, err := oci.NewFromTar(t.Context(), archive)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := store.Resolve(t.Context(), name); err != nil || d.Digest != i.index.Digest {
			t.Errorf("%s, %v", d.Digest, err)
		}
	})
	for _, r := range releases(t) {
		t.Run(r.name, func(t *testing.T) {
			socket := r.start(t)
			args := append([]string{"--address", socket, "images", "import", "--snapshotter", "native", "--platform", "linux/amd64"}, r.flags...)
			if _, err := run(t.Context(), r.ctr, append(args, archive)...); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), r.ctr, "--address", socket, "content", "get", i.layer.Digest.String()).Output()
			if err != nil || digest.FromBytes(out) != i.layer.Digest {
				t.Errorf("%d bytes, %v", len(out), err)
			}
		})
	}
	t.Run("of skopeo", func(t *testing.T) {
		theirs := filepath.Join(t.TempDir(), "theirs.tar")
		if _, err := run(t.Context(), need(t, "skopeo"), "--insecure-policy", "copy", "--all", "oci-archive:"+archive+":"+name, "oci-archive:"+theirs+":"+name); err != nil {
			t.Fatal(err)
		}
		inside := t.TempDir()
		if err := os.WriteFile(filepath.Join(inside, "mirror.yaml"), []byte("apiVersion: tidegate.io/v1\nkind: Mirror\nstore: store\nmode: offline\nupstreams: [{name: "+mcr+"}]\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"import", theirs}, {"preload", name}} {
			if out, err := run(t.Context(), program, append([]string{"mirror", "-c", filepath.Join(inside, "mirror.yaml")}, args...)...); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		}
	})
}

// isWhole validates a layout as crane does.
func isWhole(t *testing.T, dir string) {
	t.Helper()
	p, err := layout.FromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	index, err := p.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
}
