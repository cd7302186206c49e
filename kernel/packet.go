package kernel

import "time"

// Packet is one packet that waits in a queue for its verdict.
type Packet struct {
	ID      uint32 // for Queue.Verdict
	Payload []byte // from the IP header on; only valid until the handler returns
	// Cut is set when the packet is longer than what could be copied, which
	// only happens beyond 64 KiB. A verdict still holds for all of it.
	Cut bool
}

// QueueOptions changes how a [Queue] is opened. The zero value is for enforcing.
type QueueOptions struct {
	FailOpen bool // let packets pass when the queue is full: observe mode only
	MaxLen   int  // packets that may wait in the kernel; 0 is 16,384
}

// QueueStats counts what a queue has seen since it was opened.
type QueueStats struct {
	Packets  uint64 // handed to the handler
	Waiting  uint64 // in the kernel's queue now
	Full     uint64 // dropped by the kernel because the queue was full
	Unread   uint64 // dropped by the kernel because the socket's buffer was full
	Overruns uint64 // times that the kernel reported a loss to the reader
}

// Handler receives what a [Queue] reads. Its functions are called on the
// goroutine of Queue.Run, so that what they share needs no lock.
type Handler struct {
	// Packets gets a batch, oldest first. A packet that is given no verdict
	// is held by the kernel until it gets one; verdicts of a batch are sent
	// when Packets returns.
	Packets func(batch []Packet)
	// Tick is called about every Every and after Queue.Wake, whether packets
	// come or not, for what has to happen after a while.
	Tick  func(now time.Time)
	Every time.Duration // 0 is 10 ms
	// Behind gets what Queue.Behind has kept, once the verdicts before it are
	// with the kernel.
	Behind func(packet []byte)
}
