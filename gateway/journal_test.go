package gateway

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"tidegate.io/tidegate/egress"
)

func journalOf(t testing.TB, answers ...string) ([]byte, []egress.Binding) {
	t.Helper()
	var bs []egress.Binding
	for _, s := range answers {
		x := answer(t, s)
		x.Expires = x.Expires.Local()
		bs = append(bs, x)
	}
	var file bytes.Buffer
	if err := WriteJournal(&file, slices.Values(bs[:1])); err != nil {
		t.Fatal(err)
	}
	if err := NewJournal(&file).Append(bs[1:]); err != nil {
		t.Fatal(err)
	}
	return file.Bytes(), bs
}

func same(a, b []egress.Binding) bool {
	return slices.EqualFunc(a, b, func(x, y egress.Binding) bool {
		return x.Scope == y.Scope && x.Name == y.Name && x.Addr == y.Addr && x.Expires.Equal(y.Expires)
	})
}

func TestJournal(t *testing.T) {
	file, all := journalOf(t, "prod a.example.com 20.0.0.1 60s", "prod b.example.com 2603::1 4h", "dev a.example.com 20.0.0.2 1s")
	got, good, err := ReadJournal(bytes.NewReader(file))
	if err != nil || good != int64(len(file)) || !same(got, all) {
		t.Fatalf("%v, %d of %d bytes, %v", got, good, len(file), err)
	}
	if got, good, err := ReadJournal(strings.NewReader("")); got != nil || good != 0 || err != nil {
		t.Errorf("a new one: %v, %d, %v", got, good, err)
	}
}

// TestJournalTorn cuts a journal at every byte: a prefix of what was learned comes back, and appending
// at the good offset goes on with it.
func TestJournalTorn(t *testing.T) {
	file, all := journalOf(t, "prod a.example.com 20.0.0.1 60s", "prod b.example.com 2603::1 4h", "dev a.example.com 20.0.0.2 1s")
	for n := len(journalHeader); n < len(file); n++ {
		got, good, err := ReadJournal(bytes.NewReader(file[:n]))
		if whole := good == int64(n); good > int64(n) || whole != (err == nil) || err != nil && !errors.Is(err, ErrTorn) {
			t.Fatalf("cut at %d: good to %d, %v", n, good, err)
		}
		rest := bytes.NewBuffer(slices.Clone(file[:good]))
		if err := NewJournal(rest).Append(all[len(got):]); err != nil {
			t.Fatal(err)
		}
		if again, _, err := ReadJournal(rest); err != nil || !same(again, all) {
			t.Fatalf("cut at %d and continued: %v, %v", n, again, err)
		}
	}
}

func TestJournalBroken(t *testing.T) {
	file, _ := journalOf(t, "prod a.example.com 20.0.0.1 60s", "prod b.example.com 2603::1 4h")
	for at := range file {
		bad := slices.Clone(file)
		bad[at] ^= 0x40
		got, _, err := ReadJournal(bytes.NewReader(bad))
		switch {
		case err == nil:
			t.Errorf("a changed byte %d is not seen", at)
		case !errors.Is(err, ErrTorn) && (len(got) > 0 || !strings.Contains(err.Error(), "offset ")):
			t.Errorf("byte %d: %v, %v", at, got, err)
		}
	}
}

func TestJournalErrors(t *testing.T) {
	full := errors.New("no space left")
	w := writer(func([]byte) (int, error) { return 0, full })
	x := answer(t, "prod a.example.com 20.0.0.1 60s")
	if err := NewJournal(w).Append([]egress.Binding{x}); !errors.Is(err, full) {
		t.Error(err)
	}
	if err := WriteJournal(w, slices.Values([]egress.Binding{x})); !errors.Is(err, full) {
		t.Error(err)
	}
	if _, _, err := ReadJournal(io.MultiReader(strings.NewReader("tide"), reader(func([]byte) (int, error) { return 0, full }))); !errors.Is(err, full) {
		t.Error(err)
	}
	x.Scope = strings.Repeat("x", 256)
	if err := NewJournal(io.Discard).Append([]egress.Binding{x}); err == nil {
		t.Error("a scope that does not fit is written")
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

type reader func([]byte) (int, error)

func (r reader) Read(b []byte) (int, error) { return r(b) }

// FuzzReadJournal holds what is read against what is written from it.
func FuzzReadJournal(f *testing.F) {
	file, _ := journalOf(f, "prod a.example.com 20.0.0.1 60s", "prod b.example.com 2603::1 4h")
	f.Add(file)
	f.Add(file[:len(file)-3])
	f.Add([]byte(journalHeader))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, good, err := ReadJournal(bytes.NewReader(b))
		if err != nil && !errors.Is(err, ErrTorn) {
			if len(got) > 0 {
				t.Fatal("a broken journal is trusted")
			}
			return
		}
		if good == 0 {
			return
		}
		var again bytes.Buffer
		if err := WriteJournal(&again, slices.Values(got)); err != nil || !bytes.Equal(again.Bytes(), b[:good]) {
			t.Fatalf("%d bytes come back as others, %v", good, err)
		}
	})
}
