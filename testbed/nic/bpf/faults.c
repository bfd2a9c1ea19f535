// Faults of a cable, at the switch's end: to_host at the egress, from_host at the ingress. What is to happen
// stands in memory that is shared with testbed/nic/faults.py, which has the same layout and the same rules.
//
// A frame that is to be held back goes through the wire, a TAP device read by testbed/nic/wire.py, and comes
// back to the port with a mark.
//
// Chance comes from a generator with a seed (xorshift64), so that a run can be repeated.

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#define BLACK_HOLE 1
#define MAC_HEADER 14
#define COPY 0x7e57bed // the mark of a duplicate on its way
#define HELD 0x7e57bee // the mark of what has been held back

struct direction {
	__u64 state;	// of the generator, never 0
	__u32 flags;
	__u32 loss;	// of 2^32
	__u32 corruption;
	__u32 duplication;
	__u32 wire;	// index of the device through which frames go that are held back, or 0
	__u32 port;	// index of the cable's interface
	__u64 passed;
	__u64 lost;
	__u64 corrupted;
	__u64 duplicated;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct direction);
} faults SEC(".maps");

static __always_inline __u32 roll(struct direction *way)
{
	__u64 state = way->state;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	way->state = state;
	return state >> 32;
}

static __always_inline int onward(struct direction *way)
{
	return way->wire ? bpf_redirect(way->wire, 0) : TC_ACT_UNSPEC;
}

static __always_inline int suffer(struct __sk_buff *skb, __u32 which, __u64 where)
{
	struct direction *way = bpf_map_lookup_elem(&faults, &which);
	__u32 at;
	__u8 byte;

	if (!way)
		return TC_ACT_UNSPEC;
	// one roll each, whatever becomes of it: what is switched on leaves the rest as it was
	__u32 loss = roll(way), corruption = roll(way), duplication = roll(way), place = roll(way);

	if (way->flags & BLACK_HOLE || loss < way->loss) {
		way->lost++;
		return TC_ACT_SHOT;
	}
	if (duplication < way->duplication) {
		way->duplicated++;
		skb->mark = COPY;
		bpf_clone_redirect(skb, skb->ifindex, where);
		skb->mark = 0;
	}
	if (corruption < way->corruption && skb->len > MAC_HEADER + 1) {
		at = MAC_HEADER + place % (skb->len - MAC_HEADER);
		if (!bpf_skb_load_bytes(skb, at, &byte, 1)) {
			byte ^= 1 << (place >> 29);
			if (!bpf_skb_store_bytes(skb, at, &byte, 1, 0))
				way->corrupted++;
		}
	}
	way->passed++;
	return onward(way);
}

static __always_inline int travel(struct __sk_buff *skb, __u32 which, __u64 where)
{
	struct direction *way;

	if (skb->mark == HELD) {
		skb->mark = 0;
		return TC_ACT_UNSPEC;
	}
	if (skb->mark == COPY) {
		skb->mark = 0; // it has been through the rest
		way = bpf_map_lookup_elem(&faults, &which);
		return way ? onward(way) : TC_ACT_UNSPEC;
	}
	return suffer(skb, which, where);
}

// What the wire gives back, to the port: to its egress or as if it had come from the host.
static __always_inline int arrive(struct __sk_buff *skb, __u32 which, __u64 where)
{
	struct direction *way = bpf_map_lookup_elem(&faults, &which);

	if (!way)
		return TC_ACT_SHOT;
	skb->mark = HELD;
	return bpf_redirect(way->port, where);
}

SEC("tc")
int to_host(struct __sk_buff *skb)
{
	return travel(skb, 0, 0);
}

SEC("tc")
int from_host(struct __sk_buff *skb)
{
	return travel(skb, 1, BPF_F_INGRESS);
}

SEC("tc")
int held_to_host(struct __sk_buff *skb)
{
	return arrive(skb, 0, 0);
}

SEC("tc")
int held_from_host(struct __sk_buff *skb)
{
	return arrive(skb, 1, BPF_F_INGRESS);
}

char _license[] SEC("license") = "GPL";
