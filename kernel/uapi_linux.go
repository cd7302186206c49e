package kernel

import "golang.org/x/sys/unix"

// What linux/netfilter/nfnetlink_*.h defines and golang.org/x/sys/unix lacks.
const (
	typeQueuePacket  = unix.NFNL_SUBSYS_QUEUE << 8
	typeQueueVerdict = unix.NFNL_SUBSYS_QUEUE<<8 | 1
	typeQueueConfig  = unix.NFNL_SUBSYS_QUEUE<<8 | 2

	nfqaPacketHeader  = 1
	nfqaVerdictHeader = 2
	nfqaMark          = 3
	nfqaPayload       = 10
	nfqaCapLen        = 13

	nfqaCfgCmd    = 1
	nfqaCfgParams = 2
	nfqaCfgMaxLen = 3
	nfqaCfgMask   = 4
	nfqaCfgFlags  = 5

	nfqCmdBind       = 1
	nfqCopyPacket    = 2
	nfqFlagFailOpen  = 1
	nfqFlagGSO       = 4
	nfDrop, nfAccept = 0, 1

	typeLogPacket = unix.NFNL_SUBSYS_ULOG << 8
	typeLogConfig = unix.NFNL_SUBSYS_ULOG<<8 | 1

	nfulaPayload = 9
	nfulaPrefix  = 10

	nfulaCfgCmd     = 1
	nfulaCfgMode    = 2
	nfulaCfgTimeout = 4
	nfulaCfgThresh  = 5

	nfulCmdBind    = 1
	nfulCopyPacket = 2

	typeConntrackNew    = unix.NFNL_SUBSYS_CTNETLINK << 8
	typeConntrackGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1
	typeConntrackDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2

	ctaTupleOrig     = 1
	ctaTupleReply    = 2
	ctaStatus        = 3
	ctaMark          = 8
	ctaCountersOrig  = 9
	ctaCountersReply = 10
	ctaID            = 12
	ctaTimestamp     = 20
	ctaMarkMask      = 21

	ctaTupleIP    = 1
	ctaTupleProto = 2

	ctaIPv4Src = 1
	ctaIPv4Dst = 2
	ctaIPv6Src = 3
	ctaIPv6Dst = 4

	ctaProtoNum     = 1
	ctaProtoSrcPort = 2
	ctaProtoDstPort = 3

	ctaCountersPackets = 1
	ctaCountersBytes   = 2

	ctaTimestampStart = 1
	ctaTimestampStop  = 2
)
