package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"tidegate.io/tidegate/internal/netns/netnstest"
)

// TestMain makes this binary the program, and a client that tests need in a process of its own, where it is called by
// their names. The tests run where they may make network namespaces: for an ordinary user, in a user namespace.
func TestMain(m *testing.M) {
	testscript.Main(runner(func() int { return netnstest.Main(m) }), map[string]func(){"tidegate": main, "half-open": halfOpen})
}

type runner func() int

// Run implements testscript.TestingM.
func (r runner) Run() int { return r() }
