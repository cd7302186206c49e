package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http/httputil"
	"strings"
	"testing"
	"testing/iotest"
)

func TestBody(t *testing.T) {
	sized, chunked := Request{Framing: Sized, Length: 3}, Request{Framing: Chunked}
	long := strings.Repeat("x", MaxHead)
	for _, row := range []struct {
		what       string
		r          Request
		in         string
		body, rest string
		err        error
	}{
		{"no body", Request{}, "next", "", "next", nil},
		{"a sized body", sized, "abcnext", "abc", "next", nil},
		{"a sized body that ends early", sized, "ab", "ab", "", io.ErrUnexpectedEOF},
		{"chunks", chunked, "3\r\nabc\r\n00A\r\n0123456789\r\n0\r\n\r\nnext", "abc0123456789", "next", nil},
		{"no chunk", chunked, "0\r\n\r\nnext", "", "next", nil},
		{"a trailer is dropped", chunked, "1\r\na\r\n0\r\nHost: evil\r\n\r\nnext", "a", "next", nil},
		{"CR LF inside a chunk", chunked, "4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n", "", nil},

		{"an extension", chunked, "1;a=b\r\na\r\n0\r\n\r\n", "", "", ErrChunk},
		{"a space after the size", chunked, "1 \r\na\r\n0\r\n\r\n", "", "", ErrChunk},
		{"a space before the size", chunked, " 1\r\na\r\n0\r\n\r\n", "", "", ErrChunk},
		{"0x", chunked, "0x1\r\na\r\n0\r\n\r\n", "", "", ErrChunk},
		{"a plus", chunked, "+1\r\na\r\n0\r\n\r\n", "", "", ErrChunk},
		{"an underscore", chunked, "1_0\r\n0123456789abcdef\r\n0\r\n\r\n", "", "", ErrChunk},
		{"no size", chunked, "\r\na\r\n0\r\n\r\n", "", "", ErrChunk},
		{"a size beyond an int64", chunked, "8000000000000000\r\n", "", "", ErrChunk},
		{"a size that wraps to 1", chunked, "10000000000000001\r\na\r\n0\r\n\r\n", "", "", ErrChunk},
		{"a bare LF after the size", chunked, "1\na\r\n0\r\n\r\n", "", "", ErrChunk},
		{"a bare LF after the data", chunked, "1\r\na\n0\r\n\r\n", "a", "", ErrChunk},
		{"a chunk longer than its size", chunked, "1\r\nab\r\n0\r\n\r\n", "a", "", ErrChunk},
		{"a chunk shorter than its size", chunked, "2\r\na\r\n0\r\n\r\n", "a\r", "", ErrChunk},
		{"an end in the size", chunked, "1", "", "", io.ErrUnexpectedEOF},
		{"an end before the last chunk", chunked, "1\r\na\r\n", "a", "", io.ErrUnexpectedEOF},
		{"an end inside a chunk", chunked, "2\r\na", "a", "", io.ErrUnexpectedEOF},
		{"an end before the trailer's", chunked, "0\r\n", "", "", io.ErrUnexpectedEOF},
		{"a trailer that is none", chunked, "0\r\nGET / HTTP/1.1\r\n\r\n", "", "", ErrField},
		{"a long trailer", chunked, "0\r\nX: " + long + "\r\n\r\n", "", "", ErrHeadSize},
		{"a bare LF in the trailer", chunked, "0\r\n\n", "", "", ErrLine},
	} {
		br := bufio.NewReaderSize(strings.NewReader(row.in), MaxHead)
		body, err := io.ReadAll(row.r.Body(br))
		if err != row.err || string(body) != row.body {
			t.Errorf("%s: %q, %v; want %q, %v", row.what, body, err, row.body, row.err)
		}
		if rest, _ := io.ReadAll(br); err == nil && string(rest) != row.rest {
			t.Errorf("%s: leaves %q, want %q", row.what, rest, row.rest)
		}
		slow := bufio.NewReaderSize(iotest.OneByteReader(strings.NewReader(row.in)), MaxHead)
		if b, e := io.ReadAll(row.r.Body(slow)); e != err || !bytes.Equal(b, body) {
			t.Errorf("%s, byte by byte: %q, %v", row.what, b, e)
		}
	}
}

func TestCopyChunked(t *testing.T) {
	for _, n := range []int{0, 1, 15, 16, copyPiece - 1, copyPiece, copyPiece + 1, 3*copyPiece + 7} {
		body := strings.Repeat("tide", n/4+1)[:n]
		var out bytes.Buffer
		total, err := CopyChunked(&out, strings.NewReader(body))
		if err != nil || total != int64(n) {
			t.Fatalf("%d bytes: %d, %v", n, total, err)
		}
		theirs, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(out.Bytes())))
		if err != nil || string(theirs) != body {
			t.Errorf("%d bytes: net/http reads %d, %v", n, len(theirs), err)
		}
		ours, err := io.ReadAll((&Request{Framing: Chunked}).Body(bufio.NewReader(&out)))
		if err != nil || string(ours) != body {
			t.Errorf("%d bytes: we read %d, %v", n, len(ours), err)
		}
	}
}

func TestCopyChunkedDoesNotEndABrokenBody(t *testing.T) {
	broken := errors.New("reset")
	var out bytes.Buffer
	n, err := CopyChunked(&out, io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(broken)))
	if n != 3 || err != broken || out.String() != "3\r\nabc\r\n" {
		t.Errorf("%d, %v, %q", n, err, out.String())
	}
}
