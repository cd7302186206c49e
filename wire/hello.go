package wire

import "golang.org/x/crypto/cryptobyte"

const (
	// MaxExtensions is the most extensions one hello may have: about three times what
	// browsers send. It keeps the search for duplicates short.
	MaxExtensions = 64

	// MaxServerName is the most bytes of a host name in a hello. OpenSSL refuses longer
	// ones too, and a DNS name has at most 253.
	MaxServerName = 255
)

// Extension types (IANA's registry).
const (
	extServerName        = 0
	extPreSharedKey      = 41
	extSupportedVersions = 43
	extECH               = 0xfe0d
)

// ClientHello is what decides about a TLS connection: the name its client asks for.
type ClientHello struct {
	// ServerName is the host name of the server_name extension (RFC 6066, section 3), byte
	// by byte as sent: it may hold an address, upper case, spaces or worse. Empty when the
	// client named no server; an empty name in the extension is a Fault.
	ServerName string

	// ECH says that an encrypted_client_hello extension is there (RFC 9849): ServerName may
	// then be a front for a hidden name. Clients also send empty ones on purpose, which
	// cannot be told apart.
	ECH bool

	// Version is the highest TLS version offered, such as 0x0304 for TLS 1.3.
	Version uint16

	// Len is how many bytes of the stream the hello took, up to the end of its last record.
	// More may follow: early data (RFC 8446, section 4.2.10).
	Len int

	// Records is how many records it was cut into.
	Records int
}

// SameServer reports whether second may follow h after a HelloRetryRequest. RFC 8446, section
// 4.1.2, lets a client change neither field, and servers exist that take the name from the
// second hello without looking: a client shows an allowed name first, with a key share that
// the server refuses, and the denied name in its second try.
func (h ClientHello) SameServer(second ClientHello) bool {
	return h.ServerName == second.ServerName && h.ECH == second.ECH
}

// ReadClientHello reads the ClientHello that stream, all the bytes a client has sent so far,
// begins with. It returns [ErrMore] while the hello is incomplete and a [Fault] as soon as
// there is one; both stay the same, or turn into the verdict on the whole, whatever follows.
//
// A hello must be the only message of 1 to [MaxRecords] handshake records. Alerts before
// it, records without content, bytes after it in its last record, repeated extensions, and
// anything but one non-empty host name in server_name are refused, also where some servers
// let them pass.
func ReadClientHello(stream []byte) (ClientHello, error) {
	m, err := readMessage(stream, typeClientHello)
	if err != nil {
		return ClientHello{}, err
	}
	h := ClientHello{Len: m.end, Records: m.records}
	if err := h.readBody(m.body(stream)); err != nil {
		return ClientHello{}, err
	}
	return h, nil
}

// ReadSecondHello reads the ClientHello with which a client answers a HelloRetryRequest.
// stream begins after the first hello ([ClientHello.Len]); one ChangeCipherSpec may come before
// the second, and counts into its Len. A client that sent early data before it knew of the
// retry is refused: what it sends cannot be read past.
func ReadSecondHello(stream []byte) (ClientHello, error) {
	skip, err := skipChangeCipherSpec(stream)
	if err != nil {
		return ClientHello{}, err
	}
	h, err := ReadClientHello(stream[skip:])
	if err != nil {
		return ClientHello{}, err
	}
	h.Len += skip
	return h, nil
}

// readBody reads the structure of RFC 8446, section 4.1.2, which TLS 1.0 to 1.2 share.
func (h *ClientHello) readBody(body []byte) error {
	s := cryptobyte.String(body)
	var session, suites, compressions, extensions cryptobyte.String
	const random = 32
	if !s.ReadUint16(&h.Version) || !s.Skip(random) ||
		!s.ReadUint8LengthPrefixed(&session) || len(session) > 32 ||
		!s.ReadUint16LengthPrefixed(&suites) || len(suites) == 0 || len(suites)%2 != 0 ||
		!s.ReadUint8LengthPrefixed(&compressions) || len(compressions) == 0 {
		return ErrHello
	}
	if h.Version < 0x0301 || h.Version > 0x0304 {
		return ErrVersion
	}
	if s.Empty() { // a client of TLS 1.2 or older may send no extensions at all
		return nil
	}
	if !s.ReadUint16LengthPrefixed(&extensions) || !s.Empty() {
		return ErrHello
	}
	return h.readExtensions(extensions)
}

// readExtensions reads the list of RFC 8446, section 4.2.
func (h *ClientHello) readExtensions(s cryptobyte.String) error {
	var seen [MaxExtensions]uint16
	for n := 0; !s.Empty(); n++ {
		var id uint16
		var data cryptobyte.String
		if !s.ReadUint16(&id) || !s.ReadUint16LengthPrefixed(&data) {
			return ErrHello
		}
		if n == MaxExtensions {
			return ErrExtensions
		}
		for _, other := range seen[:n] {
			if other == id {
				return ErrDuplicate // two names: one for the filter, one for the server
			}
		}
		seen[n] = id
		if id == extPreSharedKey && !s.Empty() {
			return ErrHello // it must be the last (section 4.2.11)
		}
		if err := h.readExtension(id, data); err != nil {
			return err
		}
	}
	return nil
}

func (h *ClientHello) readExtension(id uint16, data cryptobyte.String) error {
	switch id {
	case extServerName:
		return h.readServerName(data)
	case extSupportedVersions:
		return h.readVersions(data)
	case extECH:
		h.ECH = true
	}
	return nil
}

// readServerName reads the structure of RFC 6066, section 3. The list may in theory hold names
// of other types; no client sends any, and servers differ on what to do with them. A trailing
// dot is forbidden there, and servers differ on it.
func (h *ClientHello) readServerName(s cryptobyte.String) error {
	const hostName = 0
	var list, name cryptobyte.String
	var kind uint8
	if !s.ReadUint16LengthPrefixed(&list) || !s.Empty() ||
		!list.ReadUint8(&kind) || kind != hostName ||
		!list.ReadUint16LengthPrefixed(&name) || !list.Empty() ||
		len(name) == 0 || len(name) > MaxServerName || name[len(name)-1] == '.' {
		return ErrServerName
	}
	h.ServerName = string(name)
	return nil
}

// readVersions reads supported_versions (RFC 8446, section 4.2.1), which replaces the version
// in front of the hello. Values that no version has are there to keep servers tolerant
// (RFC 8701).
func (h *ClientHello) readVersions(s cryptobyte.String) error {
	var list cryptobyte.String
	if !s.ReadUint8LengthPrefixed(&list) || !s.Empty() || list.Empty() {
		return ErrHello
	}
	h.Version = 0
	for !list.Empty() {
		var v uint16
		if !list.ReadUint16(&v) {
			return ErrHello
		}
		if v <= 0x0304 {
			h.Version = max(h.Version, v)
		}
	}
	return nil
}
