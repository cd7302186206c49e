package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// content is what the table holds now, as far as it decides how to replace it.
type content struct {
	chains []oldChain
	sets   []oldSet
}

type oldChain struct {
	name     string
	base     bool
	typ      string
	hook     uint32
	priority int
	drop     bool
	use      uint32 // how many rules are in it or lead to it
}

// same reports whether c can stay as the chain n of a new plan.
func (o oldChain) same(n Chain) bool {
	if n.Name != o.name || (n.Hook != nil) != o.base {
		return false
	}
	return n.Hook == nil || n.Hook.Type == o.typ && hookNumbers[n.Hook.Name] == o.hook && n.Hook.Priority == o.priority && n.Hook.Drop == o.drop
}

type oldSet struct {
	name  string
	grows bool // learned or rates: its elements are not of a plan
	marks bool
	key   KeyType
}

// list asks for all objects of a kind, and ignores a table that is not there.
func (t *Table) list(typ uint16, attrs []byte, each func(attrs []byte)) error {
	req := message(nil, unix.NFNL_SUBSYS_NFTABLES<<8|typ, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, unix.NFPROTO_INET, 0, attrs)
	err := t.sock.dump(req, func(_ uint16, body []byte) error {
		if len(body) >= nfgenLen {
			each(body[nfgenLen:])
		}
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func text(b []byte) string { return string(bytes.TrimRight(b, "\x00")) }

// chains lists the table's chains; there are none when there is no table.
func (t *Table) chains() (chains []oldChain, err error) {
	err = t.list(unix.NFT_MSG_GETCHAIN, nil, func(attrs []byte) {
		if o, ours := readChain(attrs); ours {
			chains = append(chains, o)
		}
	})
	return chains, err
}

func (t *Table) content() (c *content, err error) {
	c = &content{}
	if c.chains, err = t.chains(); err != nil {
		return nil, err
	}
	if len(c.chains) == 0 {
		return c, nil // the table may not be there, and asking for its sets is an error then
	}
	err = t.list(unix.NFT_MSG_GETSET, inTable(unix.NFTA_SET_TABLE), func(attrs []byte) { c.sets = append(c.sets, readSet(attrs)) })
	return c, err
}

func readChain(attrs []byte) (o oldChain, ours bool) {
	for typ, v := range attributes(attrs) {
		switch typ {
		case unix.NFTA_CHAIN_TABLE:
			ours = text(v) == tableName
		case unix.NFTA_CHAIN_NAME:
			o.name = text(v)
		case unix.NFTA_CHAIN_TYPE:
			o.typ = text(v)
		case unix.NFTA_CHAIN_USE:
			o.use = uint32(number(v))
		case unix.NFTA_CHAIN_POLICY:
			o.drop = number(v) == nfDrop
		case unix.NFTA_CHAIN_HOOK:
			o.base = true
			o.hook = uint32(nested(v, unix.NFTA_HOOK_HOOKNUM))
			o.priority = int(int32(nested(v, unix.NFTA_HOOK_PRIORITY)))
		}
	}
	return o, ours
}

func readSet(attrs []byte) (o oldSet) {
	for typ, v := range attributes(attrs) {
		switch typ {
		case unix.NFTA_SET_NAME:
			o.name = text(v)
		case unix.NFTA_SET_FLAGS:
			o.grows = number(v)&unix.NFT_SET_TIMEOUT != 0
			o.marks = number(v)&unix.NFT_SET_MAP != 0
		case unix.NFTA_SET_KEY_LEN:
			if number(v) == uint64(keyTypes[V6].size) {
				o.key = V6
			}
		}
	}
	return o
}

// elements reads the learned sets.
func (t *Table) elements(c *content) (all []Element, err error) {
	for _, s := range c.sets {
		if !s.grows || !s.marks {
			continue
		}
		attrs := attrString(inTable(unix.NFTA_SET_ELEM_LIST_TABLE), unix.NFTA_SET_ELEM_LIST_SET, s.name)
		err := t.list(unix.NFT_MSG_GETSETELEM, attrs, func(attrs []byte) {
			for typ, list := range attributes(attrs) {
				if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
					continue
				}
				for _, v := range attributes(list) {
					if e, ok := readElement(v); ok {
						e.Set = s.name
						all = append(all, e)
					}
				}
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

func readElement(attrs []byte) (e Element, ok bool) {
	for typ, v := range attributes(attrs) {
		switch typ {
		case unix.NFTA_SET_ELEM_KEY:
			for _, key := range attributes(v) {
				e.Addr, ok = netip.AddrFromSlice(key)
			}
		case unix.NFTA_SET_ELEM_DATA:
			for _, data := range attributes(v) {
				if len(data) == markSize {
					e.Mark = Mark(binary.NativeEndian.Uint32(data))
				}
			}
		case unix.NFTA_SET_ELEM_EXPIRATION:
			e.Timeout = time.Duration(number(v)) * time.Millisecond
		}
	}
	return e, ok
}

// Counters returns how many packets were refused, by egress.Reason's word, and
// with "observed." before it how many would have been. Counters are never reset.
func (t *Table) Counters() (map[string]uint64, error) {
	const getObj, objTable, objName, objData = unix.NFT_MSG_GETOBJ, 1, 2, 4
	t.mu.Lock()
	defer t.mu.Unlock()
	counts := map[string]uint64{}
	err := t.list(getObj, inTable(objTable), func(attrs []byte) {
		var name string
		var packets uint64
		for typ, v := range attributes(attrs) {
			switch typ {
			case objName:
				name = text(v)
			case objData:
				packets = nested(v, unix.NFTA_COUNTER_PACKETS)
			}
		}
		counts[name] = packets
	})
	return counts, err
}
