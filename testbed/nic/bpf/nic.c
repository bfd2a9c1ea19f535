// The hardware of an emulated NIC: tc programs on a cable.
//
// nic_tx is the NIC's NVGRE Encapsulated Task Offload. The switch hands over a super-packet that
// it has encapsulated; virtio_net_hdr has no GRE type, so the kernel knows the segment size but not
// the tunnel. Taking the outer bytes off and putting them back with the ENCAP flags sets the tunnel
// metadata, after which the kernel's GRE segmentation and receive coalescing work on the packet.
// The inner protocol is Ethernet whatever the families, and skb->protocol is the outer one before
// and after, so inner and outer IP versions may differ without a DECAP flag.
//
// cable_queue, at the switch's end of the cable, is the receive side of a NIC with one queue that may coalesce
// everything: without it the kernel would spread flows over all queues of the cable (see cable.c). It also
// takes the sender's socket off a frame, by sending a clone. GRO joins frames of one socket only
// (gro_list_prepare), and of a segmented super-packet just the last frame keeps it: that one would not be
// joined, and pass the others.
//
// nic_rx keeps the host's own IP stack away from the cable: packet sockets see a frame before tc does.

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#define ETHERNET 14
#define OUTER_IPV4 42 // IPv4 20 + GRE 8 + inner Ethernet 14
#define OUTER_IPV6 62 // IPv6 40 + GRE 8 + inner Ethernet 14
#define PROTOCOL_GRE 47

#define KEEP (BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET)
#define ENCAP                                                                                       \
	(BPF_F_ADJ_ROOM_ENCAP_L4_GRE | BPF_F_ADJ_ROOM_ENCAP_L2(ETHERNET) | BPF_F_ADJ_ROOM_ENCAP_L2_ETH)

static __always_inline int tunnel(struct __sk_buff *skb, const __u8 *outer, __u32 size, __u64 family)
{
	if (bpf_skb_adjust_room(skb, -(__s32)size, BPF_ADJ_ROOM_MAC, KEEP))
		return TC_ACT_SHOT;
	if (bpf_skb_adjust_room(skb, size, BPF_ADJ_ROOM_MAC, KEEP | ENCAP | family))
		return TC_ACT_SHOT;
	if (bpf_skb_store_bytes(skb, ETHERNET, outer, size, 0))
		return TC_ACT_SHOT;
	return TC_ACT_UNSPEC;
}

SEC("tc")
int nic_tx(struct __sk_buff *skb)
{
	__u8 outer[OUTER_IPV6];

	if (!skb->gso_size)
		return TC_ACT_UNSPEC;
	if (bpf_skb_load_bytes(skb, ETHERNET, outer, OUTER_IPV4))
		return TC_ACT_UNSPEC;
	if (outer[0] == 0x45 && outer[9] == PROTOCOL_GRE)
		return tunnel(skb, outer, OUTER_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4);
	if (outer[0] >> 4 != 6 || outer[6] != PROTOCOL_GRE)
		return TC_ACT_UNSPEC;
	if (bpf_skb_load_bytes(skb, ETHERNET, outer, OUTER_IPV6))
		return TC_ACT_UNSPEC;
	return tunnel(skb, outer, OUTER_IPV6, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6);
}

SEC("tc")
int nic_rx(struct __sk_buff *skb)
{
	return TC_ACT_SHOT;
}

SEC("tc")
int cable_queue(struct __sk_buff *skb)
{
	if (skb->sk) {
		bpf_clone_redirect(skb, skb->ifindex, 0);
		return TC_ACT_STOLEN;
	}
	skb->queue_mapping = 1;
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "GPL";
