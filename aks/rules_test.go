package aks

import (
	"os"
	"path/filepath"
	"testing"
)

func readExample(t *testing.T, name string) Cluster {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "clusters", "example-"+name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
