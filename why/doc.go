// Package why reads what the person on call has, an exit code, an error text, an event, lines of a log, and says what was
// being reached, how it failed, and what to look at.
//
// [Read] finds what it knows in a text; [ReadDenials] finds in the gateway's flow log whether it was the gateway. What is
// known are two tables of plain values: steps, what a node or pod was doing (steps.go, codes.go), and ways, how it
// failed (ways.go). A new message is a row.
//
// It promises to call nothing explained that is in neither table. It opens no file and no connection.
package why
