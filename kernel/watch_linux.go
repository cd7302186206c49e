package kernel

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Watch is told when anybody changes the rules of the machine, whichever they are.
type Watch struct{ sock *socket }

// OpenWatch watches the network namespace of the calling thread. What changes from
// now on is told when Run runs.
func OpenWatch() (*Watch, error) {
	s, err := openSocket(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("watch nftables: %w", err)
	}
	err = s.control(func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_NFTABLES)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch nftables: %w", err), s.close())
	}
	return &Watch{s}, nil
}

// Close ends the watch.
func (w *Watch) Close() error { return w.sock.close() }

// Run calls changed when tables, chains or rules have been removed, or too much has
// happened to say, until ctx is done, and then returns nil. It may be called many
// times for one change, and must be quick.
func (w *Watch) Run(ctx context.Context, changed func()) error {
	var lost atomic.Uint64
	seen := uint64(0)
	err := w.sock.follow(ctx, atOnce, &lost, func(h unix.NlMsghdr, _ []byte) {
		removal := false
		switch h.Type &^ (unix.NFNL_SUBSYS_NFTABLES << 8) {
		case unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_DELRULE:
			removal = true
		}
		if n := lost.Load(); removal || n != seen {
			seen = n
			changed()
		}
	})
	if err != nil {
		return fmt.Errorf("watch nftables: %w", err)
	}
	return nil
}
