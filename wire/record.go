package wire

import "encoding/binary"

// Bounds of what a stranger can make us keep of one stream.
const (
	// MaxHello is the most bytes of a stream that a ClientHello may take, record headers
	// and a ChangeCipherSpec before it included. Real ones have 200 to 2,000 bytes; Go's
	// crypto/tls reads up to 64 KiB.
	MaxHello = 64 << 10

	// MaxRecords is the most records that one handshake message may be cut into. Four hold
	// any hello of legal size, the others are for clients that cut on purpose.
	MaxRecords = 16

	recordHeader     = 5                // type, version, length (RFC 8446, section 5.1)
	changeCipherSpec = recordHeader + 1 // a whole record of it (RFC 8446, section 5)
	messageHeader    = 4                // type, length (RFC 8446, section 4)
	maxRecord        = 1 << 14          // content of one plaintext record

	// maxMessage keeps the longest message in the most records within MaxHello.
	maxMessage = MaxHello - MaxRecords*recordHeader - changeCipherSpec
)

// Record types (RFC 8446, section 5.1) and handshake types (section 4).
const (
	typeChangeCipherSpec = 20
	typeAlert            = 21
	typeHandshake        = 22

	typeClientHello = 1
	typeServerHello = 2
)

// record is the beginning of a stream as one TLS record.
type record struct {
	kind    uint8
	size    int    // content length, as stated
	content []byte // as much of it as is there
}

// whole reports whether all of the content is there.
func (r record) whole() bool { return len(r.content) == r.size }

// readRecord reads the record that stream begins with. Each byte of the header is checked
// as it comes, so that what is not TLS is refused at its first byte; SSLv2, whose first
// byte is a length, among it.
func readRecord(stream []byte) (record, error) {
	if len(stream) > 0 && (stream[0] < typeChangeCipherSpec || stream[0] > typeHandshake) {
		return record{}, ErrNotTLS
	}
	if len(stream) > 1 && stream[1] != 3 || len(stream) > 2 && (stream[2] < 1 || stream[2] > 4) {
		return record{}, ErrVersion
	}
	if len(stream) < recordHeader {
		return record{}, ErrMore
	}
	r := record{kind: stream[0], size: int(binary.BigEndian.Uint16(stream[3:]))}
	if r.size == 0 {
		return record{}, ErrEmptyRecord
	}
	if r.size > maxRecord {
		return record{}, ErrRecordSize
	}
	r.content = stream[recordHeader:min(len(stream), recordHeader+r.size)]
	return r, nil
}

// skipChangeCipherSpec returns the length of the ChangeCipherSpec record that stream begins
// with, and 0 when it begins with something else. Peers that hide TLS 1.3 from middleboxes
// send one that means nothing before their second flight (RFC 8446, appendix D.4).
func skipChangeCipherSpec(stream []byte) (int, error) {
	if len(stream) == 0 || stream[0] != typeChangeCipherSpec {
		return 0, nil
	}
	r, err := readRecord(stream)
	switch {
	case err != nil:
		return 0, err
	case r.size != 1:
		return 0, ErrNotTLS
	case !r.whole():
		return 0, ErrMore
	case r.content[0] != 1:
		return 0, ErrNotTLS
	}
	return changeCipherSpec, nil
}

// message is the first handshake message of a stream, which stands alone in its records.
type message struct {
	head    [messageHeader]byte // as much of the header as is there
	have    int                 // bytes of the message that are there
	size    int                 // bytes of it in all, header included; 0 while unknown
	end     int                 // offset in the stream after the last record seen
	records int                 // whole records seen
}

// readMessage follows the message of the wanted type over its records. It starts anew each
// time, at the cost of one step a record, so nothing is kept between calls and nothing can
// depend on how the stream came in pieces.
func readMessage(stream []byte, want uint8) (message, error) {
	var m message
	for m.size == 0 || m.have < m.size {
		if m.records == MaxRecords {
			return m, ErrRecords
		}
		r, err := readRecord(stream[m.end:])
		if len(stream) > m.end && stream[m.end] != typeHandshake {
			err = ErrNotTLS // another record between the pieces (RFC 8446, section 5.1)
		}
		if err != nil {
			return m, err
		}
		if err := m.add(r, want); err != nil {
			return m, err
		}
		m.end += recordHeader + r.size
		m.records++
	}
	return m, nil
}

// add takes in one record, whose content may still be incomplete.
func (m *message) add(r record, want uint8) error {
	if m.have < messageHeader {
		n := m.have + copy(m.head[m.have:], r.content)
		if n > 0 && m.head[0] != want {
			return ErrNotTLS
		}
		if n == messageHeader {
			m.size = messageHeader + int(binary.BigEndian.Uint32(m.head[:])&0xffffff)
		}
	}
	if m.size > maxMessage {
		return ErrHelloSize
	}
	if m.size > 0 && m.have+r.size > m.size {
		return ErrTrailing // a second message, or bytes that only some servers skip
	}
	m.have += len(r.content)
	if !r.whole() {
		return ErrMore
	}
	return nil
}

// body returns the content of a whole message without its header. It points into the
// stream when one record holds it; else the pieces are copied together.
func (m *message) body(stream []byte) []byte {
	if m.records == 1 {
		return stream[recordHeader+messageHeader : m.end]
	}
	b := make([]byte, 0, m.size)
	for at := 0; at < m.end; {
		n := int(binary.BigEndian.Uint16(stream[at+3:]))
		b = append(b, stream[at+recordHeader:at+recordHeader+n]...)
		at += recordHeader + n
	}
	return b[messageHeader:]
}
