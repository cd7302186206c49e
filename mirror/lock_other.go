//go:build !unix

package mirror

import "os"

// lockFile relies on the system, which here keeps a file that is open from others.
func lockFile(*os.File) error { return nil }

func useFile(*os.File) {}

func unlockFile(*os.File) {}

// syncFolder: folders cannot be synced here.
func syncFolder(*os.File) error { return nil }
