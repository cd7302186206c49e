package wire

import "testing"

func TestParseAuthority(t *testing.T) {
	for _, row := range []struct {
		in   string
		want Authority
		text string // "" when it is the input
	}{
		{"mcr.microsoft.com", Authority{Host: "mcr.microsoft.com"}, ""},
		{"Mcr.Microsoft.COM", Authority{Host: "mcr.microsoft.com"}, "mcr.microsoft.com"},
		{"mcr.microsoft.com.", Authority{Host: "mcr.microsoft.com"}, "mcr.microsoft.com"},
		{"mcr.microsoft.com:443", Authority{Host: "mcr.microsoft.com", Port: 443}, ""},
		{"a_b-:65535", Authority{Host: "a_b-", Port: 65535}, ""},
		{"20.1.2.3:80", Authority{Host: "20.1.2.3", Port: 80, Literal: true}, ""},
		{"0177.0.0.1", Authority{Host: "0177.0.0.1", Literal: true}, ""},
		{"2130706433", Authority{Host: "2130706433", Literal: true}, ""},
		{"0x7f000001", Authority{Host: "0x7f000001", Literal: true}, ""},
		{"0X7F.0x", Authority{Host: "0x7f.0x", Literal: true}, "0x7f.0x"},
		{"1.2.3.", Authority{Host: "1.2.3", Literal: true}, "1.2.3"},
		{"a.1b", Authority{Host: "a.1b"}, ""},
		{"[2001:DB8::0]", Authority{Host: "2001:db8::", Literal: true}, "[2001:db8::]"},
		{"[::ffff:169.254.169.254]:80", Authority{Host: "::ffff:169.254.169.254", Port: 80, Literal: true}, ""},
	} {
		got, err := ParseAuthority(row.in)
		if err != nil || got != row.want {
			t.Errorf("ParseAuthority(%q) = %+v, %v; want %+v", row.in, got, err, row.want)
		}
		if row.text == "" {
			row.text = row.in
		}
		if got.String() != row.text {
			t.Errorf("%q prints as %q, want %q", row.in, got, row.text)
		}
	}
	for _, in := range []string{
		"", ":80", "a:", "a:0", "a:080", "a:65536", "a:+1", "a:1:2", "a b", ".a", "a..b", "a..", ".",
		"mcr.microsoft.com\x00.evil", "mcr.microsoft.com@evil", "user:pass@evil", "[mcr.microsoft.com]",
		"mcr%2emicrosoft.com", "mcr．microsoft．com", "\u212aube.example", "a,b", "a/b", `a\b`, "a;b", "a'b", "(a)", "a?",
		"[fe80::1%eth0]", "[::1", "::1", "::1]", "[::1]x", "[::1]:", "[1.2.3.4]", "[", "[]", "x[::1]", "[[::1]]",
		string(make([]byte, 300)),
	} {
		if got, err := ParseAuthority(in); err != ErrHost {
			t.Errorf("ParseAuthority(%q) = %+v, %v; want %v", in, got, err, ErrHost)
		}
	}
}

func TestAuthorityAddr(t *testing.T) {
	for in, want := range map[string]string{
		"20.1.2.3":   "20.1.2.3",
		"[::1]:80":   "::1",
		"a.example":  "invalid IP",
		"0177.0.0.1": "invalid IP",
		"2130706433": "invalid IP",
		"1.2.3":      "invalid IP",
		"0x7f.1":     "invalid IP",
	} {
		a, err := ParseAuthority(in)
		if got := a.Addr().String(); err != nil || got != want {
			t.Errorf("%q: %s, %v; want %s", in, got, err, want)
		}
	}
}
