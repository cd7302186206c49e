package kernel

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Table is the table "inet tidegate" of one network namespace. Its methods may be
// called from many goroutines at once; Apply and Remove have to be called in the
// namespace itself, for its settings and routes.
type Table struct {
	// Kept says that somebody who outlives the process has File open as well, so that the
	// table stays the socket's own. It must be set before Apply, and not change.
	Kept bool

	mu      sync.Mutex // guards what follows: one question at a time
	sock    *socket
	applied []oldChain // what the last Apply left behind
	clients gate       // whom it enforces,
	gate    gate       // and who of them are guarded beside the table
	noOwner bool       // the kernel does not let a process own a table that outlives it

	openings openings
}

// tableBuffer takes a transaction with some hundred thousand prefixes.
const tableBuffer = 32 << 20

// OpenTable connects to the network namespace of the calling thread. It changes
// nothing there.
func OpenTable() (*Table, error) {
	s, err := openSocket(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	s.sendBuffer(tableBuffer)
	s.receiveBuffer(tableBuffer)
	return &Table{sock: s}, nil
}

// AdoptTable goes on with the socket to which the table belongs (File) of a process that does
// not use it any more. It owns f then.
func AdoptTable(f *os.File) (*Table, error) {
	s, err := adoptSocket(f)
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	if err := s.drain(); err != nil {
		return nil, errors.Join(fmt.Errorf("nftables: %w", err), s.close())
	}
	return &Table{sock: s}, nil
}

// File is a duplicate of the socket, to which the table belongs for as long as anybody has it
// open.
func (t *Table) File() (*os.File, error) { return t.sock.duplicate() }

// Close closes the connection; the table stays.
func (t *Table) Close() error { return t.sock.close() }

// attempts is how often Apply starts again when a learned address expires while
// its removal is on the way.
const attempts = 5

// Apply makes the kernel hold rs: the table in one transaction, which leaves the
// old rules in force when it fails, then the policy rules, and the settings. Of
// the learned addresses it keeps those that are among open, with their timeouts,
// adds the others of open, and removes the rest; so open has to be everything
// that rs.Learn gives for the bindings that hold. Counters go on.
//
// Nothing may call Open with elements for other rules meanwhile.
func (t *Table) Apply(rs *Ruleset, open []Element) error {
	err := t.replace(rs, open)
	for range attempts {
		if !errors.Is(err, unix.ENOENT) {
			break
		}
		err = t.replace(rs, open)
	}
	if err != nil {
		return fmt.Errorf("nftables: apply: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clients, t.gate = rs.Gate, rs.Gate
	if t.Kept && !t.noOwner {
		t.gate = nil // nobody else can remove the table
	}
	if err := t.gate.apply(); err != nil {
		return err
	}
	return applySysctls(rs.Sysctls)
}

// Gate makes the policy rules without which all would pass if somebody else removed the table,
// as is possible when it is nobody's any more.
func (t *Table) Gate() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gate = t.clients
	return t.gate.apply()
}

func (t *Table) replace(rs *Ruleset, open []Element) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	old, err := t.content()
	if err != nil {
		return err
	}
	stale, missing, err := t.difference(old, open)
	if err != nil {
		return err
	}
	stale = slices.DeleteFunc(stale, func(e Element) bool { return !slices.ContainsFunc(rs.Sets, e.in) })
	err = t.send(func(b *batch) error {
		b.clear(old, rs)
		if err := b.fill(rs); err != nil {
			return err
		}
		b.change(unix.NFT_MSG_DELSETELEM, stale)
		b.change(unix.NFT_MSG_NEWSETELEM, missing)
		return nil
	})
	if err != nil {
		return err
	}
	t.applied, err = t.chains()
	return err
}

// send carries out a transaction that fill writes, on the table, which it makes where it
// is not there. Where the kernel can (Linux 6.9), the table is this process's own while it
// runs, so that no other's "flush ruleset" touches it, and stays when the process ends.
func (t *Table) send(fill func(*batch) error) error {
	for {
		b := newBatch(!t.noOwner)
		if err := fill(b); err != nil {
			return err
		}
		err := b.send(t.sock)
		refused := errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)
		if !refused || t.noOwner {
			return err
		}
		t.noOwner = true // or the table is there already, and nobody's
	}
}

// fill adds all of rs to a table that has nothing of it.
func (b *batch) fill(rs *Ruleset) error {
	for _, name := range rs.Counters {
		b.counter(name)
	}
	for i := range rs.Chains {
		b.chain(&rs.Chains[i])
	}
	for i := range rs.Sets {
		b.set(i+1, &rs.Sets[i])
	}
	for i := range rs.Sets {
		b.elements(&rs.Sets[i])
	}
	for i := range rs.Chains {
		for _, r := range rs.Chains[i].Rules {
			if err := b.rule(rs.Chains[i].Name, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// Intact reports whether the chains, the number of their rules, and the policy rules are
// those of the last Apply. It has to be called in the namespace itself. Others can flush them, and then nothing is refused any more: services
// that load rules of their own begin with "flush ruleset".
func (t *Table) Intact() (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for range 2 { // a list that another's transaction interrupts may be wrong
		now, err := t.chains()
		if err != nil {
			return false, fmt.Errorf("nftables: list: %w", err)
		}
		if slices.Equal(now, t.applied) {
			return t.gate.intact()
		}
	}
	return false, nil
}

func (e Element) in(s Set) bool { return s.Name == e.Set }

// clear removes what is in the way of rs. Chains that stay are only emptied: a
// base chain that were made anew would be in force, and empty, before the
// transaction is.
func (b *batch) clear(old *content, rs *Ruleset) {
	if len(old.chains) > 0 {
		b.flushRules()
	}
	for _, s := range old.sets {
		if !s.grows {
			b.flushSet(s.name)
		}
	}
	for _, c := range old.chains {
		if !slices.ContainsFunc(rs.Chains, c.same) {
			b.deleteChain(c.name)
		}
	}
	for _, s := range old.sets {
		if !slices.ContainsFunc(rs.Sets, func(n Set) bool { return n.Name == s.name }) {
			b.deleteSet(s.name)
		}
	}
}

// key is what tells elements apart.
type elementKey struct {
	set  string
	addr [16]byte
}

func (e *Element) key() elementKey { return elementKey{e.Set, e.Addr.As16()} }

// difference compares the learned addresses in the kernel with those that are
// wanted. One with another mark is both stale and missing.
func (t *Table) difference(old *content, open []Element) (stale, missing []Element, err error) {
	have, err := t.elements(old)
	if err != nil {
		return nil, nil, err
	}
	want := make(map[elementKey]Mark, len(open))
	for i := range open {
		if _, twice := want[open[i].key()]; !twice {
			want[open[i].key()] = open[i].Mark
		}
	}
	kept := make(map[elementKey]bool, len(have))
	for i := range have {
		if m, wanted := want[have[i].key()]; wanted && m == have[i].Mark {
			kept[have[i].key()] = true
		} else {
			stale = append(stale, have[i])
		}
	}
	for _, e := range open {
		if k := e.key(); !kept[k] && want[k] == e.Mark {
			kept[k] = true
			missing = append(missing, e)
		}
	}
	return stale, missing, nil
}

// change adds messages that add or delete elements, in the order given.
func (b *batch) change(typ uint16, elements []Element) {
	var list []byte
	n := 0
	for i := range elements {
		e := &elements[i]
		list = appendElement(list, e, typ == unix.NFT_MSG_DELSETELEM)
		n++
		if n == maxElements || i == len(elements)-1 || elements[i+1].Set != e.Set {
			b.list(typ, e.Set, list)
			list, n = nil, 0
		}
	}
}

// Elements returns the learned addresses that are open now, in any order, with
// what is left of their timeouts.
func (t *Table) Elements() ([]Element, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err := t.content()
	if err != nil {
		return nil, fmt.Errorf("nftables: list: %w", err)
	}
	es, err := t.elements(c)
	if err != nil {
		return nil, fmt.Errorf("nftables: list: %w", err)
	}
	return es, nil
}

// Remove takes away everything that Apply made, and first the forwarding, for
// without the rules the machine would be an open router. Other settings stay.
func (t *Table) Remove() error {
	if err := applySysctls(closing); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gate = nil
	if err := t.gate.apply(); err != nil {
		return err
	}
	err := t.send(func(b *batch) error { // which makes one, so that there is one to delete
		b.deleteTable()
		return nil
	})
	if err != nil {
		return fmt.Errorf("nftables: remove: %w", err)
	}
	return nil
}
