package flowlog

import (
	"io"

	"tidegate.io/tidegate/egress"
)

// maxBuffered is how much is written at once.
const maxBuffered = 64 << 10

// lines is an open file of lines. It knows which lines are in it, where a bufio.Writer only knows
// that something went wrong.
type lines struct {
	to     io.WriteCloser
	buf    []byte
	ends   []int // of each line in buf
	torn   bool  // the file ends in the middle of a line
	failed bool  // and told
}

// add buffers the line of f.
func (o *lines) add(f egress.Flow) {
	o.buf = append(f.AppendJSON(o.buf), '\n')
	o.ends = append(o.ends, len(o.buf))
}

// flush writes what is buffered, and forgets it whether it could or not.
func (o *lines) flush() (written, unwritten uint64, err error) {
	if len(o.buf) == 0 {
		return 0, 0, nil
	}
	n, err := o.write(o.buf)
	for _, end := range o.ends {
		if end <= n {
			written++
		} else {
			unwritten++
		}
	}
	o.buf, o.ends = o.buf[:0], o.ends[:0]
	return written, unwritten, err
}

// write writes whole lines and returns how many of their bytes the file has. After a disk was full in
// the middle of a line, the next one begins on a line of its own.
func (o *lines) write(b []byte) (int, error) {
	if o.torn {
		if _, err := o.to.Write([]byte{'\n'}); err != nil {
			return 0, err
		}
		o.torn = false
	}
	n, err := o.to.Write(b)
	o.torn = n > 0 && b[n-1] != '\n'
	return n, err
}
