/* What programs leave at a socket, for each other. */
#pragma once

enum { TRANSLATED = 1, STICKY = 2 };

/* IPv4 is kept as ::ffff:a.b.c.d, so that a socket of either family finds what
 * one of the other has left.
 */
struct address {
	__be32 ip[4];
	__be16 port;
	__u16 protocol;
};

/* What a socket has been told: the peer it is connected to, and where its last
 * datagram that was not to that peer went.
 */
struct translation {
	struct address front;
	struct address back;
	struct address sticky_front;
	struct address sticky_back;
	__u32 sticky_id;
	__u32 flags;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct translation);
} translations SEC(".maps");
