/*
 * What Turnpike uses of DPDK. bindgen reads this file; for `static inline` functions it writes C wrappers that `cc`
 * compiles. Only what bindgen can't see, or what differs between DPDK's releases, is spelt out below.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* fopencookie */
#endif
#include <stddef.h>
#include <stdio.h>

#include <rte_alarm.h>
#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_flow.h>
#include <rte_hash.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_malloc.h>
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
static const uint64_t DPDK_RX_OFFLOAD_IPV4_CKSUM = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
static const uint64_t DPDK_RX_OFFLOAD_TCP_LRO = RTE_ETH_RX_OFFLOAD_TCP_LRO;
static const uint64_t DPDK_TX_OFFLOAD_IPV4_CKSUM = RTE_ETH_TX_OFFLOAD_IPV4_CKSUM;
static const uint64_t DPDK_TX_OFFLOAD_UDP_CKSUM = RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
static const uint64_t DPDK_TX_OFFLOAD_TCP_CKSUM = RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
static const uint64_t DPDK_RSS_IPV4 = RTE_ETH_RSS_IPV4;
static const uint64_t DPDK_RSS_FRAG_IPV4 = RTE_ETH_RSS_FRAG_IPV4;
static const uint64_t DPDK_RSS_IPV4_TCP = RTE_ETH_RSS_NONFRAG_IPV4_TCP;
static const uint64_t DPDK_RSS_IPV4_UDP = RTE_ETH_RSS_NONFRAG_IPV4_UDP;
static const uint64_t DPDK_RSS_IPV6 = RTE_ETH_RSS_IPV6;
static const uint64_t DPDK_RSS_FRAG_IPV6 = RTE_ETH_RSS_FRAG_IPV6;
static const uint64_t DPDK_RSS_IPV6_TCP = RTE_ETH_RSS_NONFRAG_IPV6_TCP;
static const uint64_t DPDK_RSS_IPV6_UDP = RTE_ETH_RSS_NONFRAG_IPV6_UDP;
/* By its place: the highest bit is more than bindgen reads a constant as. */
static const uint32_t DPDK_RSS_L3_SRC_ONLY_BIT = __builtin_ctzll(RTE_ETH_RSS_L3_SRC_ONLY);
static const uint64_t DPDK_RSS_L3_DST_ONLY = RTE_ETH_RSS_L3_DST_ONLY;
static const uint64_t DPDK_RSS_L4_DST_ONLY = RTE_ETH_RSS_L4_DST_ONLY;
static const uint64_t DPDK_RSS_L3_PRE64 = RTE_ETH_RSS_L3_PRE64;
static const uint64_t DPDK_RX_L4_CKSUM_MASK = RTE_MBUF_F_RX_L4_CKSUM_MASK;
static const uint64_t DPDK_RX_L4_CKSUM_GOOD = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
static const uint64_t DPDK_RX_L4_CKSUM_BAD = RTE_MBUF_F_RX_L4_CKSUM_BAD;
static const uint64_t DPDK_RX_L4_CKSUM_NONE = RTE_MBUF_F_RX_L4_CKSUM_NONE;
static const uint64_t DPDK_RX_LRO = RTE_MBUF_F_RX_LRO;

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

/* Whether the driver has flow rules: it is asked about one that drops everything, which changes nothing. */
static inline bool dpdk_has_flow_rules(uint16_t port_id)
{
	const struct rte_flow_attr attr = { .ingress = 1 };
	const struct rte_flow_item pattern[] = {
		{ .type = RTE_FLOW_ITEM_TYPE_ETH },
		{ .type = RTE_FLOW_ITEM_TYPE_END },
	};
	const struct rte_flow_action actions[] = {
		{ .type = RTE_FLOW_ACTION_TYPE_DROP },
		{ .type = RTE_FLOW_ACTION_TYPE_END },
	};
	struct rte_flow_error error;

	return rte_flow_validate(port_id, &attr, pattern, actions, &error) != -ENOSYS;
}

/*
 * Gives a port a flow rule for what comes in. If `rule` is null the driver is only asked whether it would take it, and nothing changes. 0,
 * or the driver's code; then `words` is what it says of that, or null.
 */
static inline int dpdk_flow(uint16_t port_id, const struct rte_flow_item *pattern, const struct rte_flow_action *actions,
			    struct rte_flow **rule, const char **words)
{
	const struct rte_flow_attr attr = { .ingress = 1 };
	struct rte_flow_error error = { .message = NULL };
	int ret = 0;

	if (rule == NULL) {
		ret = rte_flow_validate(port_id, &attr, pattern, actions, &error);
	} else {
		*rule = rte_flow_create(port_id, &attr, pattern, actions, &error);
		if (*rule == NULL)
			ret = rte_errno == 0 ? -1 : -rte_errno;
	}
	*words = error.message;
	return ret;
}

/* Takes a port's flow rule back. */
static inline int dpdk_flow_destroy(uint16_t port_id, struct rte_flow *rule)
{
	struct rte_flow_error error;

	return rte_flow_destroy(port_id, rule, &error);
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
