// Package config reads the gateway's file: which clusters stand behind it, which
// rules they have beside their own, and how the gateway itself runs.
//
// Reading is strict and pure: an unknown or doubled key, a value of the wrong
// shape and a contradiction are errors that name the file and the line, and what
// the file points to is read through a function. Nothing is applied here.
package config
