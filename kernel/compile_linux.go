package kernel

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// compiler turns the statements of one rule into the kernel's expressions, and
// adds what nft adds by itself: the family and the protocol that a field needs.
type compiler struct {
	out    []byte // NFTA_RULE_EXPRESSIONS, without its header
	err    error
	family uint8 // what the rule has established; 0 is any
	proto  uint8
}

// compile returns the expressions of a rule as attributes.
func (r Rule) compile() ([]byte, error) {
	var c compiler
	for _, s := range r {
		c.statement(s)
	}
	if c.err != nil {
		return nil, fmt.Errorf("rule %q: %w", r, c.err)
	}
	return c.out, nil
}

const reg = unix.NFT_REG_1

func (c *compiler) emit(es ...expr.Any) {
	for _, e := range es {
		b, err := expr.Marshal(unix.NFPROTO_INET, e)
		if err != nil && c.err == nil {
			c.err = err
		}
		c.raw(b)
	}
}

func (c *compiler) raw(expression []byte) {
	start := len(c.out)
	c.out = append(nest(c.out, unix.NFTA_LIST_ELEM), expression...)
	unnest(c.out, start)
}

func (c *compiler) statement(s Statement) {
	switch s := s.(type) {
	case match:
		c.match(s)
	case between:
		c.load(s.field)
		from, to := bigEndian(uint32(s.first), 2), bigEndian(uint32(s.last), 2)
		if s.first == s.last {
			c.emit(&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: from})
		} else {
			c.emit(&expr.Range{Op: expr.CmpOpEq, Register: reg, FromData: from, ToData: to})
		}
	case loopback:
		name := make([]byte, unix.IFNAMSIZ)
		copy(name, "lo")
		c.emit(&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: name})
	case linkLocal:
		c.load(v6Src)
		mask, net := make([]byte, 16), make([]byte, 16)
		copy(mask, []byte{0xff, 0xc0})
		copy(net, []byte{0xfe, 0x80})
		c.emit(&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 16, Mask: mask, Xor: make([]byte, 16)},
			&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: net})
	case hasOption:
		c.needProto(unix.IPPROTO_TCP)
		c.present(expr.ExthdrOpTcpopt, s.kind)
	case hasHeader:
		c.needFamily(unix.NFPROTO_IPV6)
		c.present(expr.ExthdrOpIpv6, s.protocol)
	case in:
		c.load(s.field)
		c.emit(&expr.Lookup{SourceRegister: reg, SetName: s.set})
	case goFrom:
		c.load(s.field)
		c.emit(&expr.Lookup{SourceRegister: reg, SetName: s.set, IsDestRegSet: true})
	case markFrom:
		c.load(s.field)
		c.emit(&expr.Lookup{SourceRegister: reg, SetName: s.set, IsDestRegSet: true, DestRegister: reg},
			&expr.Ct{Key: expr.CtKeyMARK, Register: reg, SourceRegister: true})
	default:
		c.action(s)
	}
}

func (c *compiler) action(s Statement) {
	switch s := s.(type) {
	case setMark:
		c.emit(&expr.Immediate{Register: reg, Data: hostEndian(uint32(s.mark))},
			&expr.Ct{Key: expr.CtKeyMARK, Register: reg, SourceRegister: true})
	case setPacketMark:
		c.emit(&expr.Immediate{Register: reg, Data: hostEndian(uint32(s.mark))},
			&expr.Meta{Key: expr.MetaKeyMARK, Register: reg, SourceRegister: true})
	case copyMark:
		c.emit(&expr.Meta{Key: expr.MetaKeyMARK, Register: reg},
			&expr.Ct{Key: expr.CtKeyMARK, Register: reg, SourceRegister: true})
	case count:
		c.emit(&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: s.name})
	case limit:
		c.load(s.field)
		c.emit(&expr.Dynset{SrcRegKey: reg, SetName: s.set, Operation: unix.NFT_DYNSET_OP_ADD, Exprs: []expr.Any{
			&expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(s.rate), Unit: expr.LimitTimeSecond, Burst: s.burst, Over: s.over},
		}})
	case report:
		c.emit(&expr.Log{Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX | 1<<unix.NFTA_LOG_SNAPLEN,
			Group: s.group, Snaplen: logCopy, Data: []byte(s.prefix)})
	case enqueue:
		c.emit(s.expression())
	case redirect:
		c.emit(&expr.Immediate{Register: reg, Data: bigEndian(uint32(s.port), 2)}, &expr.Redir{RegisterProtoMin: reg, Flags: natProtoSpecified})
	case masquerade:
		c.emit(&expr.Masq{})
	case untracked:
		c.emit(&expr.Notrack{})
	case setPort:
		c.setPort(s)
	case stripOption:
		c.needProto(unix.IPPROTO_TCP)
		c.raw(stripExpression(s.kind))
	case reject:
		c.reject(s)
	case verdict:
		c.emit(s.expression())
	default:
		c.err = fmt.Errorf("statement %T has no expression", s)
	}
}

// setPort writes a port, and what that makes of the checksum.
func (c *compiler) setPort(s setPort) {
	c.needProto(unix.IPPROTO_UDP)
	at := payloads[s.field]
	c.emit(&expr.Immediate{Register: reg, Data: bigEndian(uint32(s.port), 2)}, &expr.Payload{
		OperationType: expr.PayloadWrite, SourceRegister: reg, Base: at.Base, Offset: at.Offset, Len: at.Len,
		CsumType: expr.CsumTypeInet, CsumOffset: payloads[udpChecksum].Offset,
	})
}

// natProtoSpecified is NF_NAT_RANGE_PROTO_SPECIFIED.
const natProtoSpecified = 2

func (c *compiler) match(m match) {
	size := fields[m.field].size
	mask := m.mask
	c.load(m.field)
	if m.field == v4HeaderLength {
		mask = 0x0f // of the byte that also holds the version
	}
	if m.op == "&" {
		c.bitwise(m.field, size, mask)
		c.emit(&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: make([]byte, size)})
		return
	}
	if mask != 0 {
		c.bitwise(m.field, size, mask)
	}
	if m.field == l4proto && m.op == "==" {
		c.proto = uint8(m.value)
	}
	op := map[string]expr.CmpOp{"==": expr.CmpOpEq, "!=": expr.CmpOpNeq, ">": expr.CmpOpGt, ">=": expr.CmpOpGte}[m.op]
	c.emit(&expr.Cmp{Op: op, Register: reg, Data: m.field.bytes(m.value)})
}

func (c *compiler) bitwise(f field, size int, mask uint32) {
	c.emit(&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: uint32(size), Mask: f.bytes(mask), Xor: make([]byte, size)})
}

// bytes writes a value as the field has it in a register.
func (f field) bytes(v uint32) []byte {
	switch f {
	case ctState, ctMark, metaMark, fibDestination, fibSourceDevice:
		return hostEndian(v)
	}
	return bigEndian(v, fields[f].size)
}

func hostEndian(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func bigEndian(v uint32, size int) []byte {
	b := binary.BigEndian.AppendUint32(nil, v)
	return b[len(b)-size:]
}

func (c *compiler) needFamily(family uint8) {
	if c.family != family {
		c.family = family
		c.emit(&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{family}})
	}
}

func (c *compiler) needProto(proto uint8) {
	if c.proto != proto {
		c.proto = proto
		c.emit(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{proto}})
	}
}

// innerHeader is NFT_PAYLOAD_INNER_HEADER: behind the transport header.
const innerHeader = 3

// payloads says where in the packet a field is.
var payloads = map[field]expr.Payload{
	v4Src:          {Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
	v4Dst:          {Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
	anyStart:       {Base: expr.PayloadBaseNetworkHeader, Offset: 0, Len: 1},
	anyFragment:    {Base: expr.PayloadBaseNetworkHeader, Offset: 6, Len: 2},
	v4Fragment:     {Base: expr.PayloadBaseNetworkHeader, Offset: 6, Len: 2},
	v4Protocol:     {Base: expr.PayloadBaseNetworkHeader, Offset: 9, Len: 1},
	v4HeaderLength: {Base: expr.PayloadBaseNetworkHeader, Offset: 0, Len: 1},
	v6Next:         {Base: expr.PayloadBaseNetworkHeader, Offset: 6, Len: 1},
	v6Src:          {Base: expr.PayloadBaseNetworkHeader, Offset: 8, Len: 16},
	v6Dst:          {Base: expr.PayloadBaseNetworkHeader, Offset: 24, Len: 16},
	tcpDport:       {Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	tcpFlags:       {Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
	udpSport:       {Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2},
	udpDport:       {Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	udpLength:      {Base: expr.PayloadBaseTransportHeader, Offset: 4, Len: 2},
	udpChecksum:    {Base: expr.PayloadBaseTransportHeader, Offset: 6, Len: 2},
	ntpMode:        {Base: expr.PayloadBaseTransportHeader, Offset: 8, Len: 1},
	anyDport:       {Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	anyFlags:       {Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
	innerByte:      {Base: innerHeader, Offset: 0, Len: 1},
}

// load brings a field into the register.
func (c *compiler) load(f field) {
	switch f {
	case v4Src, v4Dst, v4Fragment, v4Protocol, v4HeaderLength:
		c.needFamily(unix.NFPROTO_IPV4)
	case v6Src, v6Dst, v6Next, v6FragmentProtocol:
		c.needFamily(unix.NFPROTO_IPV6)
	case tcpDport, tcpFlags:
		c.needProto(unix.IPPROTO_TCP)
	case udpSport, udpDport, udpLength, udpChecksum:
		c.needProto(unix.IPPROTO_UDP)
	}
	if p, is := payloads[f]; is {
		p.DestRegister = reg
		c.emit(&p)
		return
	}
	switch f {
	case l4proto:
		c.emit(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg})
	case metaMark:
		c.emit(&expr.Meta{Key: expr.MetaKeyMARK, Register: reg})
	case ctState:
		c.emit(&expr.Ct{Key: expr.CtKeySTATE, Register: reg})
	case ctDirection:
		c.emit(&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg})
	case ctMark:
		c.emit(&expr.Ct{Key: expr.CtKeyMARK, Register: reg})
	case fibSourceDevice:
		c.emit(&expr.Fib{Register: reg, ResultOIF: true, FlagSADDR: true, FlagIIF: true})
	case fibDestination:
		c.emit(&expr.Fib{Register: reg, ResultADDRTYPE: true, FlagDADDR: true})
	case v6FragmentProtocol:
		c.emit(&expr.Exthdr{DestRegister: reg, Type: unix.IPPROTO_FRAGMENT, Len: 1, Op: expr.ExthdrOpIpv6})
	default:
		c.err = fmt.Errorf("field %d cannot be loaded", f)
	}
}

// present matches a TCP option or an IPv6 extension header that is there.
func (c *compiler) present(op expr.ExthdrOp, typ uint8) {
	const flagPresent = 1 // NFT_EXTHDR_F_PRESENT
	c.emit(&expr.Exthdr{DestRegister: reg, Type: typ, Len: 1, Op: op, Flags: flagPresent},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{1}})
}

// stripExpression is an exthdr expression without any register, which the
// library cannot write.
func stripExpression(kind uint8) []byte {
	b := attrString(nil, unix.NFTA_EXPR_NAME, "exthdr")
	start := len(b)
	b = nest(b, unix.NFTA_EXPR_DATA)
	b = attr(b, unix.NFTA_EXTHDR_TYPE, []byte{kind})
	b = attr32(b, unix.NFTA_EXTHDR_OP, unix.NFT_EXTHDR_OP_TCPOPT)
	unnest(b, start)
	return b
}

func (q enqueue) expression() expr.Any {
	if q.native {
		e := &expr.Queue{Num: q.first, Total: q.count}
		if q.bypass {
			e.Flag = expr.QueueFlagBypass
		}
		return e
	}
	// struct xt_NFQ_info_v3: first queue, count, flags; padded to eight bytes.
	info := binary.NativeEndian.AppendUint16(nil, q.first)
	info = binary.NativeEndian.AppendUint16(info, q.count)
	flags := uint16(0)
	if q.bypass {
		flags = 1 // NFQ_FLAG_BYPASS
	}
	info = binary.NativeEndian.AppendUint16(info, flags)
	padded := xt.Unknown(slices.Concat(info, []byte{0, 0}))
	return &expr.Target{Name: "NFQUEUE", Rev: 3, Info: &padded}
}

func (c *compiler) reject(r reject) {
	switch r {
	case withReset:
		c.needProto(unix.IPPROTO_TCP)
		c.emit(&expr.Reject{Type: unix.NFT_REJECT_TCP_RST})
	case withProhibited:
		c.emit(&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED})
	case withUnreachable:
		c.emit(&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH})
	}
}

func (v verdict) expression() expr.Any {
	verb, chain := v.target()
	switch {
	case v == accept:
		return &expr.Verdict{Kind: expr.VerdictAccept}
	case v == goBack:
		return &expr.Verdict{Kind: expr.VerdictReturn}
	case verb+" " == gotoVerb:
		return &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}
	case verb+" " == jumpVerb:
		return &expr.Verdict{Kind: expr.VerdictJump, Chain: chain}
	}
	return &expr.Verdict{Kind: expr.VerdictDrop}
}

// target splits a verdict into its verb and its chain.
func (v verdict) target() (verb, chain string) {
	verb, chain, _ = strings.Cut(string(v), " ")
	return verb, chain
}
