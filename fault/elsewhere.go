//go:build linux

package fault

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"time"
)

// mostInProcess is how many established connections this process holds by itself: their servers are in it as well, and
// each end takes a descriptor.
const mostInProcess = 2000

// elsewhere are established connections that processes of their own hold, on both nodes.
type elsewhere struct{ holders []*holder }

type holder struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	n   int
}

// A Holding is what a holder is told, on its standard input.
type Holding struct {
	Targets []target      `json:"targets"`
	Count   int           `json:"count"`
	Every   time.Duration `json:"every"`
	CA      string        `json:"ca"`
}

// held is what a holder says in the end.
type held struct {
	Lost   int      `json:"lost"`
	Errors []string `json:"errors,omitempty"`
	P99    float64  `json:"p99Ms"`
}

// holdElsewhere starts the holders and waits until all n connections are open.
func (s *Site) holdElsewhere(ctx context.Context, targets []target, n int) error {
	const holders = 4
	s.far = &elsewhere{}
	what, err := json.Marshal(Holding{Targets: targets, Count: n / holders, Every: 10 * time.Second, CA: string(s.CA.PEM)})
	if err != nil {
		return err
	}
	began := time.Now()
	for i := range holders {
		h := &holder{cmd: s.conf.Command("lab", "faults", "hold"), n: n / holders}
		h.cmd.Dir = s.dir
		if h.in, err = h.cmd.StdinPipe(); err != nil {
			return err
		}
		out, err := h.cmd.StdoutPipe()
		if err != nil {
			return err
		}
		h.out = bufio.NewReader(out)
		if err := s.Node(1 + i%2).Start(h.cmd); err != nil {
			return err
		}
		s.far.holders = append(s.far.holders, h)
		if _, err := h.in.Write(append(what, '\n')); err != nil {
			return err
		}
	}
	for _, h := range s.far.holders {
		line, err := h.out.ReadString('\n')
		if err != nil {
			return fmt.Errorf("hold connections: %w", errors.Join(err, h.in.Close(), h.cmd.Wait()))
		}
		if line != "held\n" {
			return fmt.Errorf("hold connections: %s", line)
		}
	}
	s.figure(fmt.Sprintf("time to open %d connections", n), "%.1f s", time.Since(began).Seconds())
	return nil
}

// finishElsewhere ends the holders, and says what they have lost.
func (s *Site) finishElsewhere() (n, lost int, errs []error) {
	for _, h := range s.far.holders {
		n += h.n
		_ = h.in.Close()
		var end held
		if err := json.NewDecoder(h.out).Decode(&end); err != nil {
			lost += h.n
			errs = append(errs, fmt.Errorf("a holder of %d connections: %w", h.n, errors.Join(err, h.cmd.Wait())))
			continue
		}
		lost += end.Lost
		for _, text := range end.Errors {
			errs = append(errs, errors.New(text))
		}
		if err := h.cmd.Wait(); err != nil {
			errs = append(errs, err)
		}
	}
	return n, lost, errs
}

// Hold is the program that holds connections: what is read from in says how many and where to; it writes "held" when they
// are open, and what was lost when in is at its end.
func Hold(ctx context.Context, in io.Reader, out io.Writer) error {
	r := bufio.NewReader(in)
	line, err := r.ReadBytes('\n')
	if err != nil {
		return err
	}
	var what Holding
	if err := json.Unmarshal(line, &what); err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(what.CA))
	dial := func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, to.String())
	}
	began := time.Now()
	e, err := hold(ctx, dial, roots, what.Targets, what.Count, what.Every)
	if err != nil {
		fmt.Fprintln(out, err)
		return err
	}
	if _, err := fmt.Fprintln(out, "held"); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, r)
	var end held
	for i, err := range e.finish() {
		if end.Lost++; i < 5 {
			end.Errors = append(end.Errors, err.Error())
		}
	}
	end.P99 = float64(e.pings.p99(began, time.Now()).Microseconds()) / 1000
	return json.NewEncoder(out).Encode(end)
}
