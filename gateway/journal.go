package gateway

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"net/netip"
	"time"

	"tidegate.io/tidegate/egress"
)

// The journal is a header and records, each of them
//
//	length   uint16  of the body
//	checksum uint32  CRC-32C of the body
//	body     expires int64 (Unix seconds), address, scope and name, each behind its length in a byte
//
// in the byte order of networks.
const (
	journalHeader = "tidegate bindings 1\n"
	recordHead    = 2 + 4
	maxRecordBody = 8 + 3*(1+255)

	// maxJournal bounds what is read: several times what Bindings hold of one cluster.
	maxJournal = 4 << 20
)

// ErrTorn is wrapped by the error of [ReadJournal] when the last record is incomplete, as when the
// power failed while it was written.
var ErrTorn = errors.New("the last record is incomplete")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Journal appends bindings to a file, so that a restart forgets none. It is for one goroutine at a
// time.
type Journal struct {
	w   io.Writer
	buf []byte
}

// NewJournal returns a Journal that goes on at the end of w, behind what [WriteJournal] began or
// [ReadJournal] read.
func NewJournal(w io.Writer) *Journal { return &Journal{w: w} }

// Append writes the bindings with one Write; when it returns nil they may be answered. After an
// error nothing is known about the end of the file: write it anew.
func (j *Journal) Append(bindings []egress.Binding) error {
	j.buf = j.buf[:0]
	for _, b := range bindings {
		var err error
		if j.buf, err = appendRecord(j.buf, b); err != nil {
			return err
		}
	}
	if _, err := j.w.Write(j.buf); err != nil {
		return fmt.Errorf("append to journal: %w", err)
	}
	return nil
}

// WriteJournal writes a new journal that holds exactly these bindings: compaction. The caller puts it
// in the place of the old one when it has returned nil.
func WriteJournal(w io.Writer, bindings iter.Seq[egress.Binding]) error {
	out := bufio.NewWriter(w)
	buf := []byte(journalHeader)
	for b := range bindings {
		if _, err := out.Write(buf); err != nil {
			return fmt.Errorf("write journal: %w", err)
		}
		var err error
		if buf, err = appendRecord(buf[:0], b); err != nil {
			return err
		}
	}
	_, _ = out.Write(buf) // a bufio.Writer keeps its first error for Flush
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}

func appendRecord(b []byte, x egress.Binding) ([]byte, error) {
	if len(x.Scope) > 255 {
		return b, fmt.Errorf("journal: scope %q is longer than 255 bytes", x.Scope)
	}
	start := len(b)
	b = append(b, make([]byte, recordHead)...)
	b = binary.BigEndian.AppendUint64(b, uint64(x.Expires.Unix()))
	for _, field := range []string{string(x.Addr.Unmap().WithZone("").AsSlice()), x.Scope, x.Name.String()} {
		b = append(b, byte(len(field)))
		b = append(b, field...)
	}
	body := b[start+recordHead:]
	binary.BigEndian.PutUint16(b[start:], uint16(len(body)))
	binary.BigEndian.PutUint32(b[start+2:], crc32.Checksum(body, castagnoli))
	return b, nil
}

// ReadJournal reads what a journal holds, in the order it was learned. good is how many bytes of it
// are whole: cut the file there before appending. With an error that is ErrTorn the bindings are
// sound, and only the last are lost; with any other, whose text says where, there are none, and
// the journal has to be written anew.
func ReadJournal(r io.Reader) (bindings []egress.Binding, good int64, err error) {
	in := bufio.NewReaderSize(r, 64<<10)
	head := make([]byte, len(journalHeader))
	switch _, err := io.ReadFull(in, head); {
	case errors.Is(err, io.EOF):
		return nil, 0, nil // new
	case err != nil && !errors.Is(err, io.ErrUnexpectedEOF):
		return nil, 0, fmt.Errorf("read journal: %w", err)
	case string(head) != journalHeader:
		return nil, 0, errors.New("read journal: offset 0: not a journal of bindings")
	}
	good = int64(len(journalHeader))
	body := make([]byte, maxRecordBody)
	for len(bindings) < maxJournal {
		b, n, err := readRecord(in, body)
		switch {
		case errors.Is(err, io.EOF):
			return bindings, good, nil
		case errors.Is(err, io.ErrUnexpectedEOF):
			return bindings, good, fmt.Errorf("read journal: offset %d: %w", good, ErrTorn)
		case err != nil:
			return nil, 0, fmt.Errorf("read journal: offset %d: %w", good, err)
		}
		bindings = append(bindings, b)
		good += int64(n)
	}
	return nil, 0, fmt.Errorf("read journal: offset %d: more than %d records", good, maxJournal)
}

func readRecord(r io.Reader, body []byte) (b egress.Binding, n int, err error) {
	var head [recordHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return b, 0, err
	}
	size := int(binary.BigEndian.Uint16(head[:]))
	if size > len(body) {
		return b, 0, fmt.Errorf("a record of %d bytes", size)
	}
	body = body[:size]
	if _, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return b, 0, err
	}
	if binary.BigEndian.Uint32(head[2:]) != crc32.Checksum(body, castagnoli) {
		return b, 0, errors.New("the checksum is wrong")
	}
	b, err = parseBody(body)
	return b, recordHead + size, err
}

// parseBody reads a body whose checksum is right; a program other than this one may have written it.
func parseBody(body []byte) (b egress.Binding, err error) {
	if len(body) < 8 {
		return b, errors.New("a record without an expiry")
	}
	b.Expires = time.Unix(int64(binary.BigEndian.Uint64(body)), 0)
	var fields [3][]byte
	body = body[8:]
	for i := range fields {
		if len(body) < 1 || len(body) < 1+int(body[0]) {
			return b, errors.New("a record that ends within a field")
		}
		fields[i], body = body[1:1+int(body[0])], body[1+int(body[0]):]
	}
	if len(body) > 0 {
		return b, errors.New("a record with more than its fields")
	}
	addr, ok := netip.AddrFromSlice(fields[0])
	if !ok || addr.Is4In6() {
		return b, errors.New("a record without an address")
	}
	b.Addr, b.Scope = addr, string(fields[1])
	if b.Name, err = egress.ParseName(string(fields[2])); err == nil && b.Name.String() != string(fields[2]) {
		err = fmt.Errorf("name %q: not in canonical form", fields[2])
	}
	return b, err
}
