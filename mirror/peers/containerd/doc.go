// Package containerd holds the release of containerd that the mirror's tests build,
// in a module of its own: what it needs must not choose what others are built with.
package containerd
