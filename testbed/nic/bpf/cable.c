// The receive side of an emulated NIC, at the switch's end of its cable: tc egress, so that it decides
// before the frame enters the host's end. It chooses the receive queue (RSS or VMQ) and whether the kernel
// may coalesce the frame there (RSC). The NIC's registers are a memory-mapped array of one value, which
// the host's worker writes as a driver does; testbed/nic/registers.py has the same layout, and
// testbed/nic/classifier.py the same rules in Python.
//
// A cable has twice as many queues at the switch's end as the NIC has. Only what comes through one of the
// lower half is given to the kernel's GRO (drivers/net/veth.c, veth_xmit); a frame that must stay single
// takes the upper half. So it is never held back while later ones of its flow pass, and what is cut at the
// switch's port is not joined again. To the NIC both halves are the same (PACKET_FANOUT_QM: modulo).

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#define ETHERNET 14
#define ETH_IPV4 0x0800
#define ETH_IPV6 0x86dd
#define ETH_TEB 0x6558
#define ETH_VLAN 0x8100
#define VLAN_ID 0xfff
#define TCP 6
#define UDP 17
#define GRE 47
#define KEYED_GRE 0x2000

#define KEY 40
#define TABLE 128
#define FILTERS 64
#define TUPLE_IPV4 8
#define TUPLE_IPV6 32
#define LONGEST_INPUT 36

// control
#define RSS 1
#define VMQ 2
#define NVGRE_RSS 4
#define NVGRE_VMQ 8
#define RSC 16
#define NVGRE_RSC 32
#define QUEUES_SHIFT 16

// hash types, as NDIS numbers them (NDIS_HASH_*), and the counters' positions
#define HASH_IPV4 0x100
#define HASH_TCP_IPV4 0x200
#define HASH_IPV6 0x400
#define HASH_TCP_IPV6 0x1000

struct filter {
	__u8 mac[6];
	__u8 queue;
	__u8 used;
	__u16 vlan; // 0: not tagged
	__u16 nothing[3];
} __attribute__((aligned(8)));

struct registers {
	__u32 control;
	__u32 hash_types;
	__u32 table_mask; // entries - 1
	__u32 default_queue;
	__u8 key[KEY];
	__u8 table[TABLE];
	struct filter filters[FILTERS];
	__u64 hashed[5]; // frames by kind of hash: none, IPv4, TCP over IPv4, IPv6, TCP over IPv6
	__u64 unmatched; // VMQ: frames for the default queue
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct registers);
} registers SEC(".maps");

// The IP header that counts, and what lies behind it.
struct parsed {
	__u8 input[LONGEST_INPUT]; // of the hash: source, destination, ports
	__u8 addresses;		   // bytes of addresses: 8, 32, or 0 where there is no IP header to go by
	__u8 protocol;
	__u8 fragment;
	__u8 transport; // the ports are there
	__u32 after;	// offset of what follows the IP header
};

static __always_inline void parse_ip(struct __sk_buff *skb, __u32 at, __u16 type, struct parsed *found)
{
	__u8 head[20];

	found->addresses = 0;
	found->transport = 0;
	found->fragment = 0;
	if (type == ETH_IPV4) {
		if (bpf_skb_load_bytes(skb, at, head, 20) || head[0] >> 4 != 4 || (head[0] & 15) < 5)
			return;
		__builtin_memcpy(found->input, head + 12, TUPLE_IPV4);
		found->addresses = TUPLE_IPV4;
		found->protocol = head[9];
		found->fragment = (head[6] & 0x3f) || head[7];
		found->after = at + (head[0] & 15) * 4;
	} else if (type == ETH_IPV6) {
		if (bpf_skb_load_bytes(skb, at, head, 8) || head[0] >> 4 != 6)
			return;
		if (bpf_skb_load_bytes(skb, at + 8, found->input, TUPLE_IPV6))
			return;
		found->addresses = TUPLE_IPV6;
		found->protocol = head[6];
		found->after = at + 40;
	}
}

static __always_inline void parse_ports(struct __sk_buff *skb, struct parsed *found)
{
	if (found->fragment || (found->protocol != TCP && found->protocol != UDP))
		return;
	if (found->addresses == TUPLE_IPV4)
		found->transport = !bpf_skb_load_bytes(skb, found->after, found->input + TUPLE_IPV4, 4);
	else if (found->addresses == TUPLE_IPV6)
		found->transport = !bpf_skb_load_bytes(skb, found->after, found->input + TUPLE_IPV6, 4);
}

// Microsoft's Toeplitz hash: for each bit of the input that is set, the 32 bits of the key from there on.
// Bytes beyond the input are 0 and add nothing. Without branches, the kernel's check of it is short.
__noinline __u32 toeplitz(const struct registers *nic, const struct parsed *found)
{
	__u32 result = 0;
	__u64 window;

	if (!nic || !found)
		return 0;
	window = ((__u64)nic->key[0] << 24) | (nic->key[1] << 16) | (nic->key[2] << 8) | nic->key[3];
	for (__u32 i = 0; i < LONGEST_INPUT; i++) {
		window = (window << 8) | nic->key[i + 4];
		for (__u32 bit = 0; bit < 8; bit++)
			result ^= (__u32)(window >> (8 - bit)) & -(__u32)(found->input[i] >> (7 - bit) & 1);
	}
	return result;
}

// The kind of hash, 0 for none.
static __always_inline __u32 kind_of(const struct registers *nic, const struct parsed *found, int ports)
{
	__u32 types = nic->hash_types;

	if (found->addresses == TUPLE_IPV4) {
		if (ports && types & HASH_TCP_IPV4)
			return 2;
		return types & HASH_IPV4 ? 1 : 0;
	}
	if (found->addresses == TUPLE_IPV6) {
		if (ports && types & HASH_TCP_IPV6)
			return 4;
		return types & HASH_IPV6 ? 3 : 0;
	}
	return 0;
}

// Offset of the inner Ethernet header of an NVGRE frame, or 0.
static __always_inline __u32 inner_of(struct __sk_buff *skb, const struct parsed *outer)
{
	__u8 gre[4];

	if (!outer->addresses || outer->fragment || outer->protocol != GRE)
		return 0;
	if (bpf_skb_load_bytes(skb, outer->after, gre, 4))
		return 0;
	if (((gre[0] << 8) | gre[1]) != KEYED_GRE || ((gre[2] << 8) | gre[3]) != ETH_TEB)
		return 0;
	return outer->after + 8;
}

static __always_inline __u32 rss(struct __sk_buff *skb, struct registers *nic, struct parsed *outer,
				 __u32 inner, __u32 *hash, __u32 *kind)
{
	struct parsed within = {};
	__u32 tcp;
	__u8 type[2];

	parse_ports(skb, outer);
	tcp = outer->transport && outer->protocol == TCP;
	if (inner && nic->control & NVGRE_RSS && !bpf_skb_load_bytes(skb, inner + 12, type, 2)) {
		parse_ip(skb, inner + ETHERNET, (type[0] << 8) | type[1], &within);
		parse_ports(skb, &within);
		if (within.transport) { // else the outer addresses count, not the inner ones
			*outer = within;
			tcp = 1;
		}
	}
	*kind = kind_of(nic, outer, tcp);
	if (!*kind)
		return nic->default_queue;
	if (*kind & 1) // the addresses alone
		__builtin_memset(outer->input + (*kind == 1 ? TUPLE_IPV4 : TUPLE_IPV6), 0, 4);
	*hash = toeplitz(nic, outer);
	return nic->table[*hash & nic->table_mask & (TABLE - 1)];
}

// The queue of a destination MAC in a VLAN, or the default queue.
__noinline __u32 queue_of(struct registers *nic, __u64 mac, __u32 vlan)
{
	if (!nic)
		return 0;
	for (int i = 0; i < FILTERS; i++) {
		struct filter *filter = &nic->filters[i];

		if (!filter->used)
			break;
		if (*(__u64 *)filter << 16 == mac && filter->vlan == vlan)
			return filter->queue;
	}
	__sync_fetch_and_add(&nic->unmatched, 1);
	return nic->default_queue;
}

// The VLAN of a frame, 0 without a tag; the kernel keeps the tag beside the frame if it has seen it.
static __always_inline __u32 vlan_of(struct __sk_buff *skb, __u16 ethertype)
{
	__u8 tag[2];

	if (skb->vlan_present)
		return skb->vlan_tci & VLAN_ID;
	if (ethertype != ETH_VLAN || bpf_skb_load_bytes(skb, ETHERNET, tag, 2))
		return 0;
	return ((tag[0] << 8) | tag[1]) & VLAN_ID;
}

static __always_inline __u32 vmq(struct __sk_buff *skb, struct registers *nic, __u32 inner, __u16 ethertype)
{
	__u32 at = nic->control & NVGRE_VMQ ? inner : 0;
	__u64 mac = 0;

	if (bpf_skb_load_bytes(skb, at, &mac, 6))
		return nic->default_queue;
	return queue_of(nic, mac << 16, at ? 0 : vlan_of(skb, ethertype)); // RFC 7637: no tag inside
}

SEC("tc")
int cable_rx(struct __sk_buff *skb)
{
	struct parsed outer = {};
	struct registers *nic;
	__u32 zero = 0, inner, queue = 0, hash = 0, kind = 0;
	__u8 type[2];

	nic = bpf_map_lookup_elem(&registers, &zero);
	if (!nic || bpf_skb_load_bytes(skb, 12, type, 2))
		return TC_ACT_UNSPEC;
	if (nic->control & (RSC | NVGRE_RSC) && !(nic->control & (RSS | VMQ)) &&
	    (nic->control & (RSC | NVGRE_RSC)) == (RSC | NVGRE_RSC))
		return TC_ACT_UNSPEC; // one queue, everything may be joined
	parse_ip(skb, ETHERNET, (type[0] << 8) | type[1], &outer);
	inner = inner_of(skb, &outer);
	if (nic->control & RSS) {
		queue = rss(skb, nic, &outer, inner, &hash, &kind);
		__sync_fetch_and_add(&nic->hashed[kind < 5 ? kind : 0], 1);
	} else if (nic->control & VMQ) {
		queue = vmq(skb, nic, inner, (type[0] << 8) | type[1]);
	}
	skb->cb[0] = queue;
	skb->cb[1] = hash;
	skb->cb[2] = kind;
	skb->queue_mapping = queue + 1;
	if (!(nic->control & (inner ? NVGRE_RSC : RSC)))
		skb->queue_mapping += nic->control >> QUEUES_SHIFT;
	else if (kind)
		bpf_set_hash(skb, hash);
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "GPL";
