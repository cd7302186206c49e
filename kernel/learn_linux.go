package kernel

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// opening is what one call of Open wants. All but its elements are guarded by the table's lock.
type opening struct {
	elements []Element
	done     bool
	err      error
}

// openings are those that wait for the table.
type openings struct {
	mu  sync.Mutex
	all []*opening
}

func (w *openings) add(o *opening) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, o)
}

func (w *openings) take() []*opening {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.all
	w.all = nil
	return all
}

// Open opens learned addresses, and makes the timeouts of those that are open
// already start again. When it returns, connections to them are permitted. An
// address that is open for another rule gets the mark of the later one. What is
// to be opened while a transaction is under way shares the next one.
func (t *Table) Open(elements []Element) error {
	own := &opening{elements: elements}
	t.openings.add(own)
	t.mu.Lock()
	defer t.mu.Unlock()
	if !own.done {
		t.openAll(t.openings.take())
	}
	return own.err
}

func (t *Table) openAll(group []*opening) {
	atOnce := len(group) > 1 && t.openChunks(eachOnce(group)) == nil
	for _, o := range group {
		if o.done = true; !atOnce {
			o.err = t.openChunks(o.elements)
		}
	}
}

// eachOnce returns the elements of all, each once, as the last who wants it does: a
// transaction cannot delete one twice.
func eachOnce(group []*opening) []Element {
	at := map[elementKey]int{}
	var all []Element
	for _, o := range group {
		for _, e := range o.elements {
			if i, twice := at[e.key()]; twice {
				all[i] = e
				continue
			}
			at[e.key()] = len(all)
			all = append(all, e)
		}
	}
	return all
}

func (t *Table) openChunks(elements []Element) error {
	for chunk := range slices.Chunk(elements, maxElements) {
		if err := t.open(chunk); err != nil {
			return fmt.Errorf("nftables: open %s in %s, one of %d: %w", chunk[0].Addr, chunk[0].Set, len(chunk), err)
		}
	}
	return nil
}

func (t *Table) open(elements []Element) error {
	err := t.refresh(elements)
	if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EEXIST) {
		return err
	}
	// One of them is open with another mark.
	for i := range elements {
		one := elements[i : i+1]
		err := t.refresh(one)
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST) {
			b := newChange()
			b.change(unix.NFT_MSG_DELSETELEM, one)
			b.change(unix.NFT_MSG_NEWSETELEM, one)
			err = b.send(t.sock)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// refresh adds elements that may be there, in which case their timeouts start
// again. Only new kernels (Linux 6.12) do that when an element is added twice; the
// others keep the old one, so it is deleted in between, which needs it to be
// there. No packet sees it missing, for this is one transaction.
func (t *Table) refresh(elements []Element) error {
	b := newChange()
	b.change(unix.NFT_MSG_NEWSETELEM, elements)
	b.change(unix.NFT_MSG_DELSETELEM, elements)
	b.change(unix.NFT_MSG_NEWSETELEM, elements)
	return b.send(t.sock)
}
