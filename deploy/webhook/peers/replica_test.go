package peers

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// replica is one running webhook, with the rights of its service account, and a
// stand-in for the kubelet that shows it its Secret.
type replica struct {
	c                   *cluster
	cmd                 *exec.Cmd
	reviews, management string // addresses
	dir                 string // where the Secret is mounted
	stop                func()
}

func (c *cluster) replica() *replica {
	c.t.Helper()
	r := &replica{c: c, reviews: freeAddress(c.t), management: freeAddress(c.t), dir: c.t.TempDir()}
	var log bytes.Buffer
	r.cmd = exec.Command(c.tidegate, "webhook", "run", "--api-server", apiName, "--cert-dir", r.dir, "--kubeconfig", c.account,
		"--manage-certificate", namespace+"/tidegate-webhook", "--exclude-namespaces", namespace, "--listen", r.reviews, "--management", r.management)
	r.cmd.Stderr = &log
	if err := r.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	done := make(chan struct{})
	var mounting sync.WaitGroup
	mounting.Go(func() {
		for shown := ""; ; {
			select {
			case <-done:
				return
			case <-time.After(100 * time.Millisecond):
				shown = r.mount(shown)
			}
		}
	})
	r.stop = sync.OnceFunc(func() {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
		close(done)
		mounting.Wait()
		if c.t.Failed() {
			c.t.Logf("webhook:\n%s", tail(log.String()))
		}
	})
	c.t.Cleanup(r.stop)
	return r
}

// mount shows the Secret's files, if its version is not the one that is shown
// already, as the kubelet does: all at once, by a link. It returns the version.
func (r *replica) mount(shown string) string {
	out, err := exec.Command(filepath.Join(r.c.tools, "kubectl"), "--kubeconfig", r.c.admin, "-n", namespace, "get", "secret", "tidegate-webhook", "-o", "json").Output()
	var s corev1.Secret
	if err != nil || json.Unmarshal(out, &s) != nil || s.ResourceVersion == shown {
		return shown
	}
	version := "..v" + s.ResourceVersion
	if err := os.Mkdir(filepath.Join(r.dir, version), 0o700); err != nil {
		return shown
	}
	for name, b := range s.Data {
		if err := os.WriteFile(filepath.Join(r.dir, version, name), b, 0o600); err != nil {
			return shown
		}
		_ = os.Symlink(filepath.Join("..data", name), filepath.Join(r.dir, name)) // is there from the second time on
	}
	link := filepath.Join(r.dir, "..data")
	_ = os.Symlink(version, link+"_tmp")
	if err := os.Rename(link+"_tmp", link); err != nil {
		return shown
	}
	_ = os.RemoveAll(filepath.Join(r.dir, "..v"+shown))
	return s.ResourceVersion
}

func (r *replica) port() string {
	_, port, _ := net.SplitHostPort(r.reviews)
	return port
}

func (r *replica) signal(s syscall.Signal) {
	r.c.t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		r.c.t.Fatal(err)
	}
}

func (r *replica) waitReady() {
	r.c.t.Helper()
	waitFor(r.c.t, func() bool {
		b, err := r.page("/readyz")
		return err == nil && string(b) == "ok\n"
	})
}

// page is what the management address answers.
func (r *replica) page(path string) ([]byte, error) {
	resp, err := http.Get("http://" + r.management + path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// served is the certificate that the replica shows to whoever trusts authority (PEM).
func (r *replica) served(authority []byte) (*x509.Certificate, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("no authority in %q", authority)
	}
	c, err := tls.Dial("tcp", r.reviews, &tls.Config{RootCAs: pool, ServerName: "tidegate-webhook." + namespace + ".svc"})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0], nil
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// tail is the end of a log.
func tail(log string) string {
	const end = 4 << 10
	return log[max(0, len(log)-end):]
}
