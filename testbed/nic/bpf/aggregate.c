// The switch's side of an aggregate of links, without a bonding driver. The bridge's port is a veth device;
// aggregate_tx at its tc egress chooses a member for each frame, aggregate_rx at the tc ingress of each
// member, behind the cable's faults, gives frames to the bridge's port. Who is active stands in memory that
// is shared with testbed/nic/aggregate.py, which has the same layout and the same rule.
//
// LACPDUs go to the other end of the bridge's port with a mark that tells the member: packet sockets on the
// member itself would see them before the cable's faults do.

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ETHERNET 14
#define ETH_IPV4 0x0800
#define ETH_IPV6 0x86dd
#define ETH_VLAN 0x8100
#define ETH_QINQ 0x88a8
#define ETH_SLOW 0x8809
#define TCP 6
#define UDP 17
#define GRE 47
#define NVGRE 0x20006558 // a key and nothing else; Transparent Ethernet Bridging

#define MEMBERS 8
#define WORDS 9 // two IPv6 addresses, and ports or a GRE key
#define SEED 0x7e57bed5
#define SLOW 0x7e57be00 // the mark of a slow protocol's frame: this and the member's position

struct aggregate {
	// bits 0 to 31: positions of the active members, 4 bits each; from bit 32 on: their number. It is one
	// word, so that a frame sees all of a change or nothing.
	__u64 active;
	__u32 device; // index of the bridge's port
	__u32 ears;   // of the other end of the bridge's port
	__u32 members[MEMBERS]; // indexes of the members' interfaces, 0: none
	__u64 sent[MEMBERS];
	__u64 received[MEMBERS];
	__u64 inactive[MEMBERS]; // frames that came in while the member was not active
	__u64 slow[MEMBERS];
	__u64 no_member; // frames to be sent while there was none
	__u64 stranger;	 // frames from an interface that is no member
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct aggregate);
} aggregate SEC(".maps");

// What is hashed: 32-bit words in the order in which they stand in the frame, read as big-endian.
struct input {
	__be32 words[WORDS];
	__u32 count;
};

static __always_inline void parse_tail(struct __sk_buff *skb, __u32 at, __u8 protocol, struct input *in)
{
	__be32 head[2];

	if (protocol == TCP || protocol == UDP) {
		if (bpf_skb_load_bytes(skb, at, head, 4))
			return;
	} else if (protocol == GRE) {
		if (bpf_skb_load_bytes(skb, at, head, 8) || head[0] != bpf_htonl(NVGRE))
			return;
		head[0] = head[1];
	} else {
		return;
	}
	if (in->count == 2)
		in->words[2] = head[0];
	else
		in->words[8] = head[0];
	in->count++;
}

static __always_inline void parse_ip(struct __sk_buff *skb, __u32 at, __u16 type, struct input *in)
{
	__u8 head[20];

	if (type == ETH_IPV4) {
		if (bpf_skb_load_bytes(skb, at, head, 20) || head[0] >> 4 != 4 || (head[0] & 15) < 5)
			return;
		__builtin_memcpy(in->words, head + 12, 8);
		in->count = 2;
		if (!(head[6] & 0x3f) && !head[7]) // no fragment
			parse_tail(skb, at + (head[0] & 15) * 4, head[9], in);
	} else if (type == ETH_IPV6) {
		if (bpf_skb_load_bytes(skb, at, head, 8) || head[0] >> 4 != 6)
			return;
		if (bpf_skb_load_bytes(skb, at + 8, in->words, 32))
			return;
		in->count = 8;
		parse_tail(skb, at + 40, head[6], in);
	}
}

static __always_inline void parse_ethernet(struct __sk_buff *skb, struct input *in)
{
	__u32 at = ETHERNET;
	__be16 type;

	if (bpf_skb_load_bytes(skb, 12, &type, 2))
		return;
	if (type == bpf_htons(ETH_VLAN) || type == bpf_htons(ETH_QINQ)) {
		at += 4; // as if the kernel had taken the tag out already
		if (bpf_skb_load_bytes(skb, 16, &type, 2))
			return;
	}
	parse_ip(skb, at, bpf_ntohs(type), in);
	if (in->count || bpf_skb_load_bytes(skb, 0, in->words, 12))
		return;
	in->words[3] = bpf_htonl(bpf_ntohs(type));
	in->count = 4;
}

// The finalizer of MurmurHash3 (fmix32), of each word on top of what came before.
static __always_inline __u32 mix(const struct input *in)
{
	__u32 hash = SEED;

	for (__u32 i = 0; i < WORDS; i++) {
		if (i >= in->count)
			break;
		hash ^= bpf_ntohl(in->words[i]);
		hash ^= hash >> 16;
		hash *= 0x85ebca6b;
		hash ^= hash >> 13;
		hash *= 0xc2b2ae35;
		hash ^= hash >> 16;
	}
	return hash;
}

SEC("tc")
int aggregate_tx(struct __sk_buff *skb)
{
	struct input in = {};
	struct aggregate *all;
	__u32 zero = 0, count, hash, position;
	__u64 active;

	all = bpf_map_lookup_elem(&aggregate, &zero);
	if (!all)
		return TC_ACT_SHOT;
	active = *(volatile __u64 *)&all->active;
	count = active >> 32;
	if (!count) {
		__sync_fetch_and_add(&all->no_member, 1);
		return TC_ACT_SHOT;
	}
	parse_ethernet(skb, &in);
	hash = mix(&in);
	position = (__u32)active >> 4 * (hash % count) & (MEMBERS - 1);
	__sync_fetch_and_add(&all->sent[position], 1);
	skb->cb[0] = all->members[position];
	skb->cb[1] = hash;
	skb->cb[2] = count;
	return bpf_redirect(all->members[position], 0);
}

static __always_inline int is_active(__u64 active, __u32 position)
{
	for (__u32 i = 0; i < MEMBERS; i++) {
		if (i >= active >> 32)
			break;
		if (((__u32)active >> 4 * i & (MEMBERS - 1)) == position)
			return 1;
	}
	return 0;
}

SEC("tc")
int aggregate_rx(struct __sk_buff *skb)
{
	__u32 zero = 0, position = MEMBERS;
	struct aggregate *all;
	__be16 type = 0;

	all = bpf_map_lookup_elem(&aggregate, &zero);
	if (!all)
		return TC_ACT_SHOT;
	for (__u32 i = 0; i < MEMBERS; i++)
		if (all->members[i] == skb->ifindex)
			position = i;
	if (position >= MEMBERS) {
		__sync_fetch_and_add(&all->stranger, 1);
		return TC_ACT_SHOT;
	}
	bpf_skb_load_bytes(skb, 12, &type, 2);
	if (type == bpf_htons(ETH_SLOW) && !skb->vlan_present) {
		__sync_fetch_and_add(&all->slow[position], 1);
		skb->mark = SLOW + position;
		return bpf_redirect(all->ears, BPF_F_INGRESS);
	}
	if (!is_active(*(volatile __u64 *)&all->active, position)) {
		__sync_fetch_and_add(&all->inactive[position], 1);
		return TC_ACT_SHOT;
	}
	__sync_fetch_and_add(&all->received[position], 1);
	return bpf_redirect(all->device, BPF_F_INGRESS);
}

// At the other end of the bridge's port: packet sockets have seen the frame, nobody else shall.
SEC("tc")
int aggregate_ears(struct __sk_buff *skb)
{
	return TC_ACT_SHOT;
}

char _license[] SEC("license") = "GPL";
