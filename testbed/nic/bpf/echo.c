// A switch port that gives loopback messages back, so that whoever is at the other end of the cable can
// tell whether it carries frames both ways: at the tc ingress, behind the cable's faults. The answer goes
// out of the port as any frame does, through the faults of that way.
//
// Only one end of a cable may have it: two would give a message to each other for ever.

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ETHERNET 14
#define ETH_EXPERIMENTAL 0x88b5 // IEEE 802 local experimental 1
#define MAGIC 0x7e57bed5

SEC("tc")
int echo(struct __sk_buff *skb)
{
	__u8 macs[12], swapped[12];
	__be16 type;
	__be32 magic;

	if (skb->vlan_present || bpf_skb_load_bytes(skb, 12, &type, 2) || type != bpf_htons(ETH_EXPERIMENTAL))
		return TC_ACT_UNSPEC;
	if (bpf_skb_load_bytes(skb, ETHERNET, &magic, 4) || magic != bpf_htonl(MAGIC))
		return TC_ACT_UNSPEC;
	if (bpf_skb_load_bytes(skb, 0, macs, 12))
		return TC_ACT_UNSPEC;
	__builtin_memcpy(swapped, macs + 6, 6);
	__builtin_memcpy(swapped + 6, macs, 6);
	if (bpf_skb_store_bytes(skb, 0, swapped, 12, 0))
		return TC_ACT_UNSPEC;
	return bpf_redirect(skb->ifindex, 0);
}

char _license[] SEC("license") = "GPL";
