package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/wire"
)

// readRequest reads the first request of a connection to a port of HTTP rules, and ends with it:
// of the requests behind it nothing is said. Only what is observed comes here; where rules are
// enforced, the HTTP proxy has every request. It returns wire.ErrMore while the head is incomplete.
func (f *Follower) readRequest(c *conn) error {
	req, err := wire.ReadRequest(bufio.NewReaderSize(bytes.NewReader(c.client.buf[:c.client.next]), wire.MaxHead))
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return wire.ErrMore
	}
	c.known.Proto = egress.HTTP
	if err != nil {
		f.deny(c, requestReason(err))
		return nil
	}
	if req.Authority.Literal {
		c.known.Literal = true
	} else if c.known.Name, err = egress.ParseName(req.Authority.Host); err != nil {
		f.deny(c, egress.MalformedRequest)
		return nil
	}
	upgrades := slices.ContainsFunc(req.Fields, func(h wire.Field) bool { return strings.EqualFold(h.Name, "Upgrade") })
	switch v := f.decide(c); {
	case req.Form == wire.Connect:
		f.deny(c, egress.MethodNotAllowed)
	case upgrades:
		f.deny(c, egress.UpgradeNotAllowed)
	case v.Action != egress.Allow:
		f.denied(c, v)
	default:
		f.recent.keep(c.key, f.mark(c, v), f.now)
		f.log(c, v)
		f.free(c)
	}
	return nil
}

// requestReason is the reason that a fault in a request is denied for, as the HTTP proxy gives it.
func requestReason(fault error) egress.Reason {
	switch {
	case errors.Is(fault, wire.ErrMethod), errors.Is(fault, wire.ErrHTTP):
		return egress.NotHTTP
	case errors.Is(fault, wire.ErrHTTP2):
		return egress.UpgradeNotAllowed
	case errors.Is(fault, wire.ErrNoHost):
		return egress.NoServerName
	case errors.Is(fault, wire.ErrHostDiffer):
		return egress.HostMismatch
	}
	return egress.MalformedRequest
}
