//go:build !linux

package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes this binary the program where it is called by the program's name.
func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"tidegate": main}) }
