package httpproxy

import (
	"slices"
	"strings"

	"tidegate.io/tidegate/wire"
)

// hopByHop are the fields that concern one connection only (RFC 9110, section 7.6.1, and
// what proxies have been sent over the years). Trailer goes because trailers do: a trailer
// field may not become a header field.
var hopByHop = [...]string{
	"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection",
	"TE", "Trailer", "Upgrade", "HTTP2-Settings",
}

// endToEnd removes the fields of one connection, and those that Connection names, from fields.
// The rest keeps its order. Field names are ASCII, so folding them as Unicode is safe.
func endToEnd(fields []wire.Field) []wire.Field {
	named := connection(fields)
	return slices.DeleteFunc(fields, func(f wire.Field) bool {
		for _, name := range hopByHop {
			if strings.EqualFold(f.Name, name) {
				return true
			}
		}
		for _, name := range named {
			if strings.EqualFold(f.Name, name) {
				return true
			}
		}
		return false
	})
}

// connection returns the members of Connection in lower case.
func connection(fields []wire.Field) []string {
	return (&wire.Request{Fields: fields}).Tokens("Connection")
}

// has reports whether there is a field of that name.
func has(fields []wire.Field, name string) bool {
	return slices.ContainsFunc(fields, func(f wire.Field) bool { return strings.EqualFold(f.Name, name) })
}

// without removes the fields of that name from fields.
func without(fields []wire.Field, name string) []wire.Field {
	return slices.DeleteFunc(fields, func(f wire.Field) bool { return strings.EqualFold(f.Name, name) })
}
