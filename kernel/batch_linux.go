package kernel

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/google/nftables/expr"
)

// batch is an nftables transaction: all of it is done, or none.
type batch struct {
	buf   []byte
	what  []string // what each message does, for its error
	start int      // of the last message
}

// newBatch begins a transaction on the table, which it creates where it is not
// there yet, and makes the socket's own if owned.
func newBatch(owned bool) *batch {
	const tableOwner, tablePersist = 2, 4 // NFT_TABLE_F_*
	b := newChange()
	attrs := attrString(nil, unix.NFTA_TABLE_NAME, tableName)
	if owned {
		attrs = attr32(attrs, unix.NFTA_TABLE_FLAGS, tableOwner|tablePersist)
	}
	b.message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, attrs, "table")
	return b
}

// newChange begins a transaction on a table that is there.
func newChange() *batch {
	b := &batch{}
	b.edge(unix.NFNL_MSG_BATCH_BEGIN)
	return b
}

func (b *batch) edge(typ uint16) {
	b.buf = message(b.buf, typ, unix.NLM_F_REQUEST, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	b.what = append(b.what, "transaction")
}

func (b *batch) message(typ uint16, flags uint16, attrs []byte, what ...string) {
	b.start = len(b.buf)
	b.buf = message(b.buf, unix.NFNL_SUBSYS_NFTABLES<<8|typ, unix.NLM_F_REQUEST|flags, unix.NFPROTO_INET, 0, attrs)
	b.what = append(b.what, strings.Join(what, " "))
}

// send ends and sends the transaction.
func (b *batch) send(s *socket) error {
	// Only the last message asks for an answer: refusals come unasked.
	b.buf[b.start+6] |= unix.NLM_F_ACK
	b.edge(unix.NFNL_MSG_BATCH_END)
	err := s.request(b.buf)
	var refused *requestError
	switch {
	case errors.As(err, &refused) && refused.index < len(b.what):
		return fmt.Errorf("%s: %w", b.what[refused.index], err)
	case errors.Is(err, unix.EMSGSIZE):
		return fmt.Errorf("transaction of %d bytes: more than the socket takes without privilege: %w", len(b.buf), err)
	}
	return err
}

func inTable(typ uint16) []byte { return attrString(nil, typ, tableName) }

func (b *batch) deleteTable() {
	b.message(unix.NFT_MSG_DELTABLE, 0, inTable(unix.NFTA_TABLE_NAME), "table")
}

// flushRules deletes the rules of all chains.
func (b *batch) flushRules() {
	b.message(unix.NFT_MSG_DELRULE, 0, inTable(unix.NFTA_RULE_TABLE), "rules")
}

func (b *batch) deleteChain(name string) {
	b.message(unix.NFT_MSG_DELCHAIN, 0, attrString(inTable(unix.NFTA_CHAIN_TABLE), unix.NFTA_CHAIN_NAME, name), "chain", name)
}

func (b *batch) deleteSet(name string) {
	b.message(unix.NFT_MSG_DELSET, 0, attrString(inTable(unix.NFTA_SET_TABLE), unix.NFTA_SET_NAME, name), "set", name)
}

func (b *batch) flushSet(name string) {
	attrs := attrString(inTable(unix.NFTA_SET_ELEM_LIST_TABLE), unix.NFTA_SET_ELEM_LIST_SET, name)
	b.message(unix.NFT_MSG_DELSETELEM, 0, attrs, "set", name)
}

func (b *batch) counter(name string) {
	const objTable, objName, objType, objData = 1, 2, 3, 4 // NFTA_OBJ_*
	attrs := attrString(inTable(objTable), objName, name)
	attrs = attr32(attrs, objType, unix.NFT_OBJECT_COUNTER)
	start := len(attrs)
	attrs = nest(attrs, objData)
	unnest(attrs, start)
	b.message(unix.NFT_MSG_NEWOBJ, unix.NLM_F_CREATE, attrs, "counter", name)
}

// hookNumbers are the NF_INET_* numbers of the hooks in use.
var hookNumbers = map[string]uint32{
	"prerouting": unix.NF_INET_PRE_ROUTING, "input": unix.NF_INET_LOCAL_IN,
	"forward": unix.NF_INET_FORWARD, "output": unix.NF_INET_LOCAL_OUT, "postrouting": unix.NF_INET_POST_ROUTING,
}

func (b *batch) chain(c *Chain) {
	attrs := attrString(inTable(unix.NFTA_CHAIN_TABLE), unix.NFTA_CHAIN_NAME, c.Name)
	if h := c.Hook; h != nil {
		start := len(attrs)
		attrs = nest(attrs, unix.NFTA_CHAIN_HOOK)
		attrs = attr32(attrs, unix.NFTA_HOOK_HOOKNUM, hookNumbers[h.Name])
		attrs = attr32(attrs, unix.NFTA_HOOK_PRIORITY, uint32(h.Priority))
		unnest(attrs, start)
		policy := uint32(nfAccept)
		if h.Drop {
			policy = nfDrop
		}
		attrs = attr32(attrs, unix.NFTA_CHAIN_POLICY, policy)
		attrs = attrString(attrs, unix.NFTA_CHAIN_TYPE, h.Type)
	}
	b.message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, attrs, "chain", c.Name)
}

func (b *batch) rule(chain string, r Rule) error {
	expressions, err := r.compile()
	if err != nil {
		return fmt.Errorf("chain %s: %w", chain, err)
	}
	attrs := attrString(inTable(unix.NFTA_RULE_TABLE), unix.NFTA_RULE_CHAIN, chain)
	attrs = attr(attrs, unix.NFTA_RULE_EXPRESSIONS|unix.NLA_F_NESTED, expressions)
	b.message(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, attrs, "chain", chain, "rule", r.String())
	return nil
}

// keyTypes are nft's numbers for the types of keys, and their sizes.
var keyTypes = [...]struct{ magic, size uint32 }{V4: {7, 4}, V6: {8, 16}, PortKey: {13, 2}}

const markType, markSize = 19, 4

func (b *batch) set(id int, s *Set) {
	flags, size := uint32(unix.NFT_SET_INTERVAL), uint32(0)
	switch {
	case s.Kind == Rates:
		flags, size = unix.NFT_SET_TIMEOUT|unix.NFT_SET_EVAL, maxSources
	case s.Learned:
		flags, size = unix.NFT_SET_TIMEOUT, maxLearned
	}
	attrs := attrString(inTable(unix.NFTA_SET_TABLE), unix.NFTA_SET_NAME, s.Name)
	attrs = attr32(attrs, unix.NFTA_SET_KEY_TYPE, keyTypes[s.Key].magic)
	attrs = attr32(attrs, unix.NFTA_SET_KEY_LEN, keyTypes[s.Key].size)
	attrs = attr32(attrs, unix.NFTA_SET_ID, uint32(id))
	switch s.Kind {
	case Marks:
		flags |= unix.NFT_SET_MAP
		attrs = attr32(attrs, unix.NFTA_SET_DATA_TYPE, markType)
		attrs = attr32(attrs, unix.NFTA_SET_DATA_LEN, markSize)
	case Chains:
		flags |= unix.NFT_SET_MAP
		attrs = attr32(attrs, unix.NFTA_SET_DATA_TYPE, unix.NFT_DATA_VERDICT)
		attrs = attr32(attrs, unix.NFTA_SET_DATA_LEN, 0)
	case Rates:
		attrs = attr64(attrs, unix.NFTA_SET_TIMEOUT, sourceTimeoutMillis)
	}
	attrs = attr32(attrs, unix.NFTA_SET_FLAGS, flags)
	if size != 0 {
		start := len(attrs)
		attrs = nest(attrs, unix.NFTA_SET_DESC)
		attrs = attr32(attrs, unix.NFTA_SET_DESC_SIZE, size)
		unnest(attrs, start)
	}
	attrs = attr(attrs, unix.NFTA_SET_USERDATA, setUserdata(s))
	b.message(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, attrs, "set", s.Name)
}

const sourceTimeoutMillis = 60_000

// setUserdata is what nft keeps in a set to print it: the byte orders of keys and
// data (type, length, value).
func setUserdata(s *Set) []byte {
	const keyOrder, dataOrder, host, network = 0, 1, 1, 2
	b := append([]byte{keyOrder, 4}, hostEndian(network)...)
	if s.Kind == Marks {
		b = append(append(b, dataOrder, 4), hostEndian(host)...)
	}
	return b
}

// maxElements is how many elements one message holds: the length of their list
// has 16 bits.
const maxElements = 500

// elements adds the ranges of a set.
func (b *batch) elements(s *Set) {
	var list []byte
	n := 0
	for i := range s.Ranges {
		list = appendRangeElements(list, s, &s.Ranges[i])
		if n++; n == maxElements/2 || i == len(s.Ranges)-1 {
			b.list(unix.NFT_MSG_NEWSETELEM, s.Name, list)
			list, n = nil, 0
		}
	}
}

func (b *batch) list(typ uint16, set string, list []byte) {
	attrs := attrString(inTable(unix.NFTA_SET_ELEM_LIST_TABLE), unix.NFTA_SET_ELEM_LIST_SET, set)
	attrs = attr(attrs, unix.NFTA_SET_ELEM_LIST_ELEMENTS|unix.NLA_F_NESTED, list)
	b.message(typ, unix.NLM_F_CREATE, attrs, "set", set)
}

// appendRangeElements appends a range as the kernel keeps it: the first key with
// its data, and the key behind the last as an end, if there is one.
func appendRangeElements(list []byte, s *Set, r *Range) []byte {
	first, next := r.First.AsSlice(), r.Last.Next().AsSlice()
	if s.Key == PortKey {
		first, next = bigEndian(uint32(r.Ports.First), 2), bigEndian(uint32(r.Ports.Last)+1, 2)
		if r.Ports.Last == 0xffff {
			next = nil
		}
	}
	start := len(list)
	list = nest(list, unix.NFTA_LIST_ELEM)
	list = appendKey(list, first)
	switch s.Kind {
	case Marks:
		list = appendData(list, attr(nil, unix.NFTA_DATA_VALUE, hostEndian(uint32(r.Mark))))
	case Chains:
		v := attr32(nil, unix.NFTA_VERDICT_CODE, uint32(0xffffffff&int64(expr.VerdictGoto)))
		v = attrString(v, unix.NFTA_VERDICT_CHAIN, r.Chain)
		list = appendData(list, attr(nil, unix.NFTA_DATA_VERDICT|unix.NLA_F_NESTED, v))
	}
	unnest(list, start)
	if next == nil {
		return list
	}
	start = len(list)
	list = nest(list, unix.NFTA_LIST_ELEM)
	list = attr32(list, unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	list = appendKey(list, next)
	unnest(list, start)
	return list
}

func appendKey(list, key []byte) []byte {
	return attr(list, unix.NFTA_SET_ELEM_KEY|unix.NLA_F_NESTED, attr(nil, unix.NFTA_DATA_VALUE, key))
}

func appendData(list, data []byte) []byte {
	return attr(list, unix.NFTA_SET_ELEM_DATA|unix.NLA_F_NESTED, data)
}

// appendElement appends a learned address; without its data and timeout where it
// is only named, to be deleted.
func appendElement(list []byte, e *Element, named bool) []byte {
	start := len(list)
	list = nest(list, unix.NFTA_LIST_ELEM)
	list = appendKey(list, e.Addr.AsSlice())
	if !named {
		list = appendData(list, attr(nil, unix.NFTA_DATA_VALUE, hostEndian(uint32(e.Mark))))
		list = attr64(list, unix.NFTA_SET_ELEM_TIMEOUT, uint64(max(e.Timeout.Milliseconds(), 1)))
	}
	unnest(list, start)
	return list
}
