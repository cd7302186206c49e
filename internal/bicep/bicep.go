// Package bicep writes values in Bicep's syntax, for the packages that print
// Bicep files. A text never ends its string early nor starts an interpolation,
// which would run with the rights of whoever deploys.
package bicep

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// String returns s as a literal.
func String(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "${", `\${`, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(s) + "'"
}

// Value returns a value that was encoded as JSON, without a line's end; all its
// lines but the first begin with indent. It must not hold null, which no
// resource of ours needs; JSON with an error in it is a defect, and panics.
func Value(encoded []byte, indent string) string {
	var b strings.Builder
	d := json.NewDecoder(bytes.NewReader(encoded))
	d.UseNumber()
	value(&b, d, indent)
	return b.String()
}

var plainKey = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func value(b *strings.Builder, d *json.Decoder, indent string) {
	token, err := d.Token()
	if err != nil {
		panic(err)
	}
	switch v := token.(type) {
	case string:
		b.WriteString(String(v))
	case json.Delim:
		fmt.Fprintf(b, "%s\n", v)
		for d.More() {
			b.WriteString(indent + "  ")
			if v == '{' {
				key, err := d.Token()
				if err != nil {
					panic(err)
				}
				name := key.(string)
				if !plainKey.MatchString(name) {
					name = String(name)
				}
				b.WriteString(name + ": ")
			}
			value(b, d, indent+"  ")
			b.WriteByte('\n')
		}
		end, err := d.Token()
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(b, "%s%s", indent, end)
	default:
		fmt.Fprintf(b, "%v", v)
	}
}
