package egress

import (
	"errors"
	"strings"
	"testing"
)

func TestParseName(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, tt := range []struct{ why, in, want string }{
		{"canonical stays", "mcr.microsoft.com", "mcr.microsoft.com"},
		{"ASCII letters are lowered", "Mcr.Microsoft.COM", "mcr.microsoft.com"},
		{"one trailing dot is dropped", "mcr.microsoft.com.", "mcr.microsoft.com"},
		{"an underscore is a name byte", "_dns.resolver.arpa", "_dns.resolver.arpa"},
		{"a hyphen may lead and end on the wire", "-a-.b", "-a-.b"},
		{"one label is a name", "kubernetes", "kubernetes"},
		{"digits in front are no address", "1.2.3.com", "1.2.3.com"},
		{"a punycode label stays", "xn--bcher-kva.example", "xn--bcher-kva.example"},
		{"63 bytes in a label", long + ".com", long + ".com"},
		{"253 bytes in all", strings.Join([]string{long, long, long, long[:61]}, "."), strings.Join([]string{long, long, long, long[:61]}, ".")},

		{"empty", "", ""},
		{"only a dot", ".", ""},
		{"two trailing dots", "mcr.microsoft.com..", ""},
		{"a leading dot", ".mcr.microsoft.com", ""},
		{"an empty label", "mcr..microsoft.com", ""},
		{"NUL ends a C string early", "mcr.microsoft.com\x00.evil", ""},
		{"user info", "mcr.microsoft.com@evil", ""},
		{"brackets", "[mcr.microsoft.com]", ""},
		{"percent encoding", "mcr%2emicrosoft.com", ""},
		{"a fullwidth dot", "mcr．microsoft．com", ""},
		{"KELVIN SIGN folds to k in Unicode only", "\u212aube.example", ""},
		{"LONG S folds to s in Unicode only", "micro\u017foft.com", ""},
		{"a space", "mcr.microsoft.com ", ""},
		{"a slash", "a/b.com", ""},
		{"a port", "mcr.microsoft.com:443", ""},
		{"a zone", "fe80::1%eth0", ""},
		{"a star", "*.example.com", ""},
		{"64 bytes in a label", long + "a.com", ""},
		{"254 bytes in all", strings.Join([]string{long, long, long, long[:62]}, "."), ""},
	} {
		n, err := ParseName(tt.in)
		if n.String() != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s: ParseName(%q) = %q, %v; want %q", tt.why, tt.in, n, err, tt.want)
		}
	}
}

func TestAddressIsNoName(t *testing.T) {
	for _, in := range []string{"1.2.3.4", "0177.0.0.1", "2130706433", "1.2.3", "0x7f.1", "a.0x7f", "127.1.", "foo.42", "0X7F000001", "a.0x"} {
		if n, err := ParseName(in); !errors.Is(err, ErrAddress) || !n.IsZero() {
			t.Errorf("ParseName(%q) = %q, %v; want ErrAddress", in, n, err)
		}
	}
}

func TestParseNameDoesNotAllocate(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { _, _ = ParseName("eastus.data.mcr.microsoft.com") }); n != 0 {
		t.Errorf("ParseName of canonical input allocates %v times", n)
	}
}

// FuzzParseName: a name is read as a naive reader does it label by label, and is the same when read again.
func FuzzParseName(f *testing.F) {
	for _, s := range []string{"mcr.microsoft.com.", "1.2.3.4", "a..b", "\u212a.x", "0x1", "A_b-c.D"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseName(s)
		if want := naiveName(s); want != n.String() {
			t.Fatalf("ParseName(%q) = %q, %v; naively %q", s, n, err, want)
		}
		if again, err := ParseName(n.String()); !n.IsZero() && (err != nil || again != n) {
			t.Fatalf("%q does not round trip: %q, %v", n, again, err)
		}
	})
}

// naiveName is ParseName as it is specified, label by label.
func naiveName(s string) string {
	s = strings.TrimSuffix(s, ".")
	labels := strings.Split(s, ".")
	for i, l := range labels {
		digits := strings.Trim(l, "0123456789") == ""
		hex := strings.HasPrefix(l, "0x") || strings.HasPrefix(l, "0X")
		if l == "" || len(l) > 63 || i == len(labels)-1 && (digits || hex) {
			return ""
		}
	}
	out := []byte(s)
	for i, c := range out {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", rune(c)) {
			return ""
		}
		if 'A' <= c && c <= 'Z' {
			out[i] = c | 0x20
		}
	}
	if len(out) > 253 {
		return ""
	}
	return string(out)
}
