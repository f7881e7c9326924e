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

/* To make room at a socket costs several times what deciding where it goes does,
 * so a TCP socket's translation is kept here, as long as its place is free: the
 * place is the cookie's, until the socket is closed. What finds it taken is kept
 * at the socket.
 */
enum { PEERS = 65536 };

struct peer {
	__u64 cookie; /* 0: free */
	struct address front;
	struct address back;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PEERS);
	__type(key, __u32);
	__type(value, struct peer);
} peers SEC(".maps");

static __always_inline struct peer *place_of(__u64 cookie)
{
	__u32 index = cookie % PEERS;

	return bpf_map_lookup_elem(&peers, &index);
}
