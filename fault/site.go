//go:build linux

package fault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/lab"
)

// A Config is what the suite needs of the program around it. All of it is needed.
type Config struct {
	// Dir is empty, and only this process and its children see it: file systems are mounted below it.
	Dir string
	// Command makes a command of the program itself.
	Command func(args ...string) *exec.Cmd
	// Read reads the gateway's file in a directory, as the gateway does.
	Read func(dir string) ([]egress.Rule, []egress.Cluster, error)
	// Long makes the rows whose time or number is scaled down take all of it.
	Long bool
	// Say is told what is under way.
	Say func(string)
}

// ownRules are those of the sites' file beside the cluster's.
const ownRules = `rules:
  - {id: web, to: ["https://shop.example.org:443"]}
  - {id: address, to: ["tcp://20.103.4.5:9000", "tcp://[2603:1000:7::5]:9000"]}
  - {id: name, to: ["tcp://git.example.org:9001"]}
  - {id: datagrams, to: ["udp://20.103.4.0/24:1194", "udp://[2603:1000:7::/64]:1194"]}
  - {id: ftp, to: ["tcp://20.103.4.6:21"]}
`

// A Site is a lab with a gateway of its own, in which one fault is made.
type Site struct {
	*lab.Lab
	conf Config
	dir  string
	file string // the gateway's, as it began
	evil *evil
	est  *established
	new  *fresh
	sink *sink // of the flow log, if it is a pipe
	far  *elsewhere

	fewNames bool // that are looked up: what is learned is kept for a quarter of an hour

	pause time.Duration // the longest of a hand-over
	start time.Duration // and of a start

	mu      sync.Mutex
	figures map[string]string
	missed  []string       // goals in time
	unmade  []string       // why the fault was not there
	undo    []func() error // of what Inject made, for whoever undoes it
	closing []func() error // of what open made
}

// open builds a site for a row. The caller closes it.
func open(ctx context.Context, conf Config, row *Row, dir string) (*Site, error) {
	s := &Site{conf: conf, dir: dir, evil: newEvil(), figures: map[string]string{}}
	s.file = lab.GatewayConfig("lab", ownRules)
	if row.File != nil {
		s.file = row.File(s.file)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := s.mountDisk(row.Disk); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, lab.ClusterFile), lab.Example, 0o600); err != nil {
		return nil, err
	}
	if err := s.write(s.file); err != nil {
		return nil, err
	}
	rules, clusters, err := conf.Read(dir)
	if err != nil {
		return nil, err
	}
	if row.File != nil {
		if err := s.openSink(); err != nil {
			return nil, err
		}
	}
	s.Lab, err = lab.Start(ctx, lab.Config{
		Dir: dir, Rules: rules, Clusters: clusters, Ready: lab.Ready, Watch: s.evil.watch, Unkept: row.Unkept,
		Gateway: func() *exec.Cmd { return conf.Command("gateway", "run", "--config", lab.GatewayFile) },
	})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close ends everything of the site.
func (s *Site) Close() error {
	errs := []error{s.undoAll()}
	if s.Lab != nil {
		s.Lab.Close()
	}
	for _, f := range s.closing {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// write replaces the gateway's file; nothing of it is in force before a reload.
func (s *Site) write(text string) error {
	return os.WriteFile(filepath.Join(s.dir, lab.GatewayFile), []byte(text), 0o600)
}

// later remembers how to undo what an Inject has made.
func (s *Site) later(f func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.undo = append(s.undo, f)
}

// undoAll undoes what is remembered, the last first.
func (s *Site) undoAll() error {
	s.mu.Lock()
	undo := s.undo
	s.undo = nil
	s.mu.Unlock()
	var errs []error
	for i := range undo {
		errs = append(errs, undo[len(undo)-1-i]())
	}
	return errors.Join(errs...)
}

// undone is an Undo for rows whose Inject has said how.
func undone(_ context.Context, s *Site) error { return s.undoAll() }

// figure adds a number, or a word, to what the row reports.
func (s *Site) figure(name, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.figures[name] = fmt.Sprintf(format, args...)
}

// miss says that a goal in time was missed: the machine's load has a say in it.
func (s *Site) miss(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.missed = append(s.missed, fmt.Sprintf(format, args...))
}

// notMade says that the fault has not happened as its row says, and why: then the row has shown nothing.
func (s *Site) notMade(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unmade = append(s.unmade, fmt.Sprintf(format, args...))
}

// command runs "tidegate gateway" beside the running one.
func (s *Site) command(ctx context.Context, args ...string) (out string, code int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cmd := s.conf.Command(append([]string{"gateway", "--config", lab.GatewayFile}, args...)...)
	cmd.Dir = s.dir
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-ctx.Done():
			_ = cmd.Process.Kill()
		case <-done:
		}
	}()
	text, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		return "", 0, err
	}
	return string(text), cmd.ProcessState.ExitCode(), nil
}

// reload brings the file into force, which has to succeed.
func (s *Site) reload(ctx context.Context, text string) error {
	if err := s.write(text); err != nil {
		return err
	}
	out, code, err := s.command(ctx, "reload")
	if err == nil && code != 0 {
		err = fmt.Errorf("gateway reload: exit status %d: %s", code, out)
	}
	return err
}

// status is what the suite wants to know of the gateway; `gateway status -o json` says more.
type status struct {
	Policy struct {
		ID string `json:"id"`
	} `json:"policy"`
	Reloads struct{ Applied, Failed uint64 } `json:"reloads"`
	Refused map[string]uint64                `json:"refused"`
	Counts  map[string]uint64                `json:"decisions"`
	Queues  []struct {
		Number               uint16
		Waiting, Dropped     uint64
		Connections, Sources int
	} `json:"queues"`
	Bindings struct{ Names, Addresses int } `json:"bindings"`
	DNS      struct {
		Stale, LearnLate, LearnFailed uint64
	} `json:"dns"`
	Flows     struct{ Written, Lost, Suppressed, Unwritten, KernelLost uint64 } `json:"flows"`
	Mended    uint64                                                            `json:"rulesMended"`
	Conntrack struct{ Entries, Most uint64 }                                    `json:"conntrack"`
}

func (s *Site) status(ctx context.Context) (status, error) {
	var st status
	out, code, err := s.command(ctx, "status", "-o", "json")
	if err != nil {
		return st, err
	}
	if at := strings.IndexByte(out, '{'); at >= 0 {
		out = out[at:]
	}
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&st); err != nil {
		return st, fmt.Errorf("gateway status: exit status %d: %w: %.300s", code, err, out)
	}
	return st, nil
}

// dropped sums what the queues have lost.
func (s status) dropped() (n uint64) {
	for _, q := range s.Queues {
		n += q.Dropped
	}
	return n
}

// followed sums the undecided connections.
func (s status) followed() (n int) {
	for _, q := range s.Queues {
		n += q.Connections
	}
	return n
}

// mountDisk gives the gateway's state and log a small file system.
func (s *Site) mountDisk(size int64) error {
	if size == 0 {
		return nil
	}
	state := filepath.Join(s.dir, "state")
	if err := os.MkdirAll(state, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("tidegate-fault", state, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", size)); err != nil {
		return notHere("no file system can be mounted: %v", err)
	}
	s.closing = append(s.closing, func() error { return unix.Unmount(state, unix.MNT_DETACH) })
	return nil
}

// where is one of name's addresses, whether or not anybody has asked for it.
func (s *Site) where(name string, v6 bool) netip.Addr {
	for _, a := range s.Zone.Addrs(name) {
		if a.Is6() == v6 {
			return a
		}
	}
	return netip.Addr{}
}

// find asks the gateway for name, from node 1, again and again as clients do, and returns the first address.
func (s *Site) find(ctx context.Context, name string, v6 bool) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	for {
		addrs, err := s.Node(1).Lookup(ctx, name, v6)
		if err == nil {
			return addrs[0], nil
		}
		select {
		case <-ctx.Done():
			return netip.Addr{}, err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// until waits until f is true, and reports whether that came in time.
func until(ctx context.Context, d time.Duration, f func() bool) bool {
	for end := time.Now().Add(d); !f(); {
		if time.Now().After(end) || pause(ctx, 10*time.Millisecond) != nil {
			return false
		}
	}
	return true
}

// pause waits, and returns the error of ctx if that is done first.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// words are never sent twice.
var words atomic.Uint64

// gatewayDNS is where the virtual network's DNS points to.
var gatewayDNS = lab.GatewayInside[0]

// refused is how many packets the kernel's rules have refused for a reason.
func (s *Site) refused(ctx context.Context, reason string) (uint64, error) {
	st, err := s.status(ctx)
	return st.Refused[reason], err
}
