//go:build linux

package fault

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"

	"tidegate.io/tidegate/kernel"
)

// A path is a bad one: packets that the edge forwards are lost, come twice, or come late and so out of order.
type path struct {
	site  *Site
	queue *kernel.Queue
	raw   *kernel.Resetter

	lost, twice, late, all int
	waiting                []delayed
}

// A delayed packet waits for its verdict.
type delayed struct {
	id  uint32
	due time.Time
}

// pathQueue is a queue of the edge, which has no others.
const pathQueue = 77

// What happens to packets, in percent.
const (
	lostPercent  = 5
	twicePercent = 5
	latePercent  = 10
	lateBy       = 15 * time.Millisecond
)

// openPath puts the edge's packets into a queue. The caller runs it.
func openPath(s *Site) (*path, error) {
	p := &path{site: s}
	err := s.Edge().Do(func() (err error) {
		if p.queue, err = kernel.OpenQueue(pathQueue, kernel.QueueOptions{}); err != nil {
			return err
		}
		p.raw, err = kernel.OpenResetter()
		return err
	})
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	if err := s.inNftables(s.Edge(), p.divert); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// divert adds the rule, as nft says it or, where the kernel does not know that, as iptables does.
func (p *path) divert(c *nftables.Conn) error {
	info := make([]byte, 8) // struct xt_NFQ_info_v3: number, how many, flags
	binary.NativeEndian.PutUint16(info, pathQueue)
	binary.NativeEndian.PutUint16(info[2:], 1)
	unknown := xt.Unknown(info)
	var errs []error
	for _, queue := range []expr.Any{&expr.Queue{Num: pathQueue, Total: 1}, &expr.Target{Name: "NFQUEUE", Rev: 3, Info: &unknown}} {
		table := c.AddTable(&nftables.Table{Name: "path", Family: nftables.TableFamilyINet})
		chain := c.AddChain(&nftables.Chain{
			Name: "forward", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
		})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{queue}})
		err := c.Flush()
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return notHere("the edge's packets cannot be queued: %v", errors.Join(errs...))
}

func (p *path) close() error {
	var errs []error
	if p.queue != nil {
		errs = append(errs, p.queue.Close())
	}
	if p.raw != nil {
		errs = append(errs, p.raw.Close())
	}
	return errors.Join(errs...)
}

// run is the path until ctx is done; then it is a good one again.
func (p *path) run(ctx context.Context) error {
	err := p.queue.Run(ctx, kernel.Handler{Packets: p.packets, Tick: p.tick, Every: 5 * time.Millisecond})
	err = errors.Join(err, p.site.inNftables(p.site.Edge(), func(c *nftables.Conn) error {
		c.DelTable(&nftables.Table{Name: "path", Family: nftables.TableFamilyINet})
		return c.Flush()
	}))
	return errors.Join(err, p.close())
}

func (p *path) packets(batch []kernel.Packet) {
	for i := range batch {
		b := &batch[i]
		p.all++
		switch n := rand.IntN(100); {
		case n < lostPercent:
			p.lost++
			p.queue.Verdict(b.ID, false, 0)
		case n < lostPercent+latePercent:
			p.late++
			p.waiting = append(p.waiting, delayed{b.ID, time.Now().Add(lateBy)})
		case n < lostPercent+latePercent+twicePercent:
			p.twice++
			_ = p.raw.Send(bytes.Clone(b.Payload)) // from the edge itself, which does not queue it
			p.queue.Verdict(b.ID, true, 0)
		default:
			p.queue.Verdict(b.ID, true, 0)
		}
	}
}

func (p *path) tick(now time.Time) {
	for len(p.waiting) > 0 && now.After(p.waiting[0].due) {
		p.queue.Verdict(p.waiting[0].id, true, 0)
		p.waiting = p.waiting[1:]
	}
}

// report says what the path did. It is called after run.
func (p *path) report() error {
	p.site.figure("packets", "%d, of which %d lost, %d twice, %d late", p.all, p.lost, p.twice, p.late)
	if p.lost == 0 {
		return fmt.Errorf("of %d packets none was lost: this is no bad path", p.all)
	}
	return nil
}
