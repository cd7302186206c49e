package aks

import (
	"fmt"
	"time"
)

// Date is a day, written 2026-06-18: a day on which the article changed, or an
// edition, which is the article as it stood on that day. It is comparable and
// text-ordered; the zero Date is no day.
type Date struct{ s string }

// The oldest and the newest edition of the article that the catalogue knows.
// Every day in between is an edition too.
var (
	Oldest = Date{"2024-12-11"}
	Newest = Date{"2026-06-18"}
)

// ParseDate reads a day.
func ParseDate(s string) (Date, error) {
	if _, err := time.Parse(time.DateOnly, s); err != nil {
		return Date{}, fmt.Errorf("date %q: want a day such as %s", s, Newest)
	}
	return Date{s}, nil
}

// ParseEdition reads a day from [Oldest] to [Newest], outside of which nothing
// is known; empty text is the newest.
func ParseEdition(s string) (Date, error) {
	if s == "" {
		return Newest, nil
	}
	d, err := ParseDate(s)
	if err == nil && (d.Before(Oldest) || Newest.Before(d)) {
		err = fmt.Errorf("edition %s: known are the days from %s to %s", s, Oldest, Newest)
	}
	return d, err
}

// Before reports whether d is an earlier day than e.
func (d Date) Before(e Date) bool { return d.s < e.s }

// IsZero reports whether d is no day.
func (d Date) IsZero() bool { return d.s == "" }

// String returns the text form.
func (d Date) String() string { return d.s }

// MarshalText is String.
func (d Date) MarshalText() ([]byte, error) { return []byte(d.s), nil }

// UnmarshalText is ParseDate.
func (d *Date) UnmarshalText(b []byte) (err error) {
	*d, err = ParseDate(string(b))
	return err
}
