//go:build !linux

package kernel

import (
	"context"
	"os"
)

// What is here is described beside its Linux form.

// Table is there on Linux only.
type Table struct{}

// Queue is there on Linux only.
type Queue struct{}

// Log is there on Linux only.
type Log struct{}

// Tracker is there on Linux only.
type Tracker struct{}

// Resetter is there on Linux only.
type Resetter struct{}

// Probe returns ErrUnsupported, like all that follows.
func Probe() (Features, error) { return Features{}, ErrUnsupported }

func OpenTable() (*Table, error)                       { return nil, ErrUnsupported }
func (*Table) Apply(*Ruleset, []Element) error         { return ErrUnsupported }
func (*Table) Open([]Element) error                    { return ErrUnsupported }
func (*Table) Elements() ([]Element, error)            { return nil, ErrUnsupported }
func (*Table) Counters() (map[string]uint64, error)    { return nil, ErrUnsupported }
func (*Table) Remove() error                           { return ErrUnsupported }
func (*Table) Close() error                            { return ErrUnsupported }
func OpenQueue(uint16, QueueOptions) (*Queue, error)   { return nil, ErrUnsupported }
func (*Queue) Run(context.Context, Handler) error      { return ErrUnsupported }
func (*Queue) Verdict(uint32, bool, Mark)              {}
func (*Queue) Wake()                                   {}
func (*Queue) Behind([]byte)                           {}
func (*Queue) Flush() error                            { return ErrUnsupported }
func (*Queue) Stats() (QueueStats, error)              { return QueueStats{}, ErrUnsupported }
func (*Queue) Close() error                            { return ErrUnsupported }
func AdoptQueue(uint16, *os.File) (*Queue, error)      { return nil, ErrUnsupported }
func (*Queue) File() (*os.File, error)                 { return nil, ErrUnsupported }
func AdoptLog(uint16, *os.File) (*Log, error)          { return nil, ErrUnsupported }
func (*Log) File() (*os.File, error)                   { return nil, ErrUnsupported }
func OpenLog(uint16) (*Log, error)                     { return nil, ErrUnsupported }
func (*Log) Run(context.Context, func(Denial)) error   { return ErrUnsupported }
func (*Log) Lost() uint64                              { return 0 }
func (*Log) Close() error                              { return ErrUnsupported }
func OpenTracker() (*Tracker, error)                   { return nil, ErrUnsupported }
func (*Tracker) Run(context.Context, func(Flow)) error { return ErrUnsupported }
func (*Tracker) Flows() ([]Flow, error)                { return nil, ErrUnsupported }
func (*Tracker) Cut(...Flow) error                     { return ErrUnsupported }
func (*Tracker) Knows(Flow) (bool, error)              { return false, ErrUnsupported }
func (*Tracker) Lost() uint64                          { return 0 }
func (*Tracker) Close() error                          { return ErrUnsupported }
func OpenResetter() (*Resetter, error)                 { return nil, ErrUnsupported }
func (*Resetter) Send([]byte) error                    { return ErrUnsupported }
func (*Resetter) Close() error                         { return ErrUnsupported }
