package wire

import (
	"bufio"
	"io"
	"strconv"
)

// maxChunkLine is the most bytes of a line that gives the size of a chunk: sixteen hexadecimal
// digits are more than an int64 holds.
const maxChunkLine = 16 + 2

// Body reads the body of r from br, which [ReadRequest] left at its first byte, and nothing
// beyond it. The reader returns io.EOF only at the true end; a connection that ends earlier
// gives io.ErrUnexpectedEOF. It is not safe for concurrent use.
func (r *Request) Body(br *bufio.Reader) io.Reader {
	switch r.Framing {
	case Sized:
		return &sizedReader{br: br, left: r.Length}
	case Chunked:
		return &chunkedReader{sized: sizedReader{br: br}}
	}
	return &sizedReader{br: br}
}

// sizedReader is an io.LimitedReader that takes an early end for an error.
type sizedReader struct {
	br   *bufio.Reader
	left int64
}

func (s *sizedReader) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > s.left {
		p = p[:s.left]
	}
	n, err := s.br.Read(p)
	s.left -= int64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// chunkedReader decodes the chunked coding (RFC 9112, section 7.1) to the letter: hexadecimal
// digits and CR LF. Chunk extensions are refused; nobody sends them but to hide requests in.
// Trailer fields are read strictly and dropped, so that none of them can become a header.
type chunkedReader struct {
	sized sizedReader // the rest of the chunk
	began bool        // a chunk has been read, and its CR LF has not
	err   error       // sticky
}

func (c *chunkedReader) Read(p []byte) (int, error) {
	if c.err != nil || len(p) == 0 {
		return 0, c.err
	}
	if c.sized.left == 0 {
		if c.err = c.nextChunk(); c.err != nil {
			return 0, c.err
		}
	}
	n, err := c.sized.Read(p)
	c.err = err
	return n, err
}

// nextChunk reads up to the data of the next chunk, or to the end of the body.
func (c *chunkedReader) nextChunk() error {
	if c.began {
		if end, err := c.line(2); err != nil || len(end) != 0 {
			return orChunk(err)
		}
	}
	digits, err := c.line(maxChunkLine)
	if err != nil {
		return orChunk(err)
	}
	if len(digits) == 0 || !all(string(digits), isHex) {
		return ErrChunk
	}
	size, err := strconv.ParseInt(string(digits), 16, 64)
	if err != nil {
		return ErrChunk
	}
	if size > 0 {
		c.began, c.sized.left = true, size
		return nil
	}
	lines := lineReader{br: c.sized.br, left: MaxHead}
	if _, err := lines.fields(); err != nil {
		return err
	}
	return io.EOF
}

func (c *chunkedReader) line(limit int) ([]byte, error) {
	lines := lineReader{br: c.sized.br, left: limit}
	return lines.next()
}

// orChunk turns what a lineReader says into words about a chunk.
func orChunk(err error) error {
	switch err {
	case nil, ErrLine, ErrHeadSize:
		return ErrChunk
	case io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}

// copyPiece is how much of a body travels at once.
const copyPiece = 32 << 10

// CopyChunked copies body to w in the chunked coding, without extensions and trailers, and
// returns how many bytes of body it copied. The last chunk is written only when body has ended
// with io.EOF: after an error, close the connection behind w, so that the server does not
// take the beginning for the whole.
func CopyChunked(w io.Writer, body io.Reader) (int64, error) {
	const sizeLine = 6 // 32 KiB is "8000\r\n"
	buf := make([]byte, sizeLine+copyPiece+2)
	var total int64
	for {
		n, err := body.Read(buf[sizeLine : sizeLine+copyPiece])
		if n > 0 {
			var line [sizeLine]byte
			head := append(strconv.AppendInt(line[:0], int64(n), 16), "\r\n"...)
			start := sizeLine - len(head)
			copy(buf[start:], head)
			copy(buf[sizeLine+n:], "\r\n")
			if _, err := w.Write(buf[start : sizeLine+n+2]); err != nil {
				return total, err
			}
			total += int64(n)
		}
		if err == io.EOF {
			_, err = io.WriteString(w, "0\r\n\r\n")
			return total, err
		}
		if err != nil {
			return total, err
		}
	}
}
