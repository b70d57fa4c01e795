/*
 * What Turnpike uses of DPDK. bindgen reads this file; for `static inline` functions it writes C wrappers that `cc`
 * compiles. Only what bindgen can't see, or what differs between DPDK's releases, is spelt out below.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* fopencookie */
#endif
#include <stddef.h>
#include <stdio.h>

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

/*
 * Where the fields of a packet buffer are, in bytes. Their offsets are part of DPDK's ABI; the names of the anonymous
 * unions around them are not, so the struct itself is opaque to Rust.
 */
enum dpdk_mbuf_offset {
	DPDK_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr), /* void * */
	DPDK_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off), /* uint16_t */
	DPDK_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs),   /* uint16_t */
	DPDK_MBUF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags), /* uint64_t */
	DPDK_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len),   /* uint32_t */
	DPDK_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len), /* uint16_t */
	DPDK_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len),   /* uint16_t */
};

/* Flags that are macros of 64-bit expressions, which bindgen doesn't evaluate. */
static const uint64_t DPDK_RX_OFFLOAD_UDP_CKSUM = RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
static const uint64_t DPDK_RX_OFFLOAD_TCP_CKSUM = RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
static const uint64_t DPDK_RX_L4_CKSUM_MASK = RTE_MBUF_F_RX_L4_CKSUM_MASK;
static const uint64_t DPDK_RX_L4_CKSUM_GOOD = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
static const uint64_t DPDK_RX_L4_CKSUM_BAD = RTE_MBUF_F_RX_L4_CKSUM_BAD;
static const uint64_t DPDK_RX_L4_CKSUM_NONE = RTE_MBUF_F_RX_L4_CKSUM_NONE;

/* rte_errno is a macro over a thread-local variable. */
static inline int dpdk_errno(void)
{
	return rte_errno;
}

/* Link state without bit-fields, whose place differs between releases. */
struct dpdk_link {
	uint32_t speed_mbps; /* RTE_ETH_SPEED_NUM_UNKNOWN if the device doesn't know */
	bool up;
	bool full_duplex;
};

static inline int dpdk_eth_link_get_nowait(uint16_t port_id, struct dpdk_link *out)
{
	struct rte_eth_link link;
	int ret = rte_eth_link_get_nowait(port_id, &link);

	if (ret == 0) {
		out->speed_mbps = link.link_speed;
		out->up = link.link_status == RTE_ETH_LINK_UP;
		out->full_duplex = link.link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
	}
	return ret;
}

/* Takes one message of DPDK's log. */
typedef ssize_t (*dpdk_log_writer)(void *cookie, const char *text, size_t len);

/* Gives DPDK's log to `writer`, a message a call: DPDK flushes the stream after each. -1 without memory. */
static inline int dpdk_log_to(dpdk_log_writer writer)
{
	cookie_io_functions_t functions = { .write = writer };
	FILE *stream = fopencookie(NULL, "w", functions);

	return stream == NULL ? -1 : rte_openlog_stream(stream);
}
