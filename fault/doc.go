// Package fault breaks things around a running gateway, one at a time, and measures who notices.
//
// Each [Row] is one fault of a table: how it is made, how it is undone, and what is expected. The runner builds a lab
// for it and keeps three streams of connections going meanwhile: established ones, of which none may be lost; new
// ones, which may have to wait; and evil ones, of which none ever may arrive, whatever else is broken. What counts as
// arrived is what a server saw. [Soak] makes faults of the table at random for as long as it is told, and watches
// whether the gateway grows.
//
// A row that cannot be made on a machine is reported as not run, with the reason, and never as passed. Everything
// happens inside the lab's network namespaces; only processes that the lab started are stopped or limited.
package fault
