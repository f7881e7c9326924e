//go:build ignore

/* Ends sockets that are connected to a backend that is no more. They are looked
 * at one by one, in the network namespace of whoever reads the iterator. One
 * that is not connected is never ended: it would lose its port, and may be
 * talking to others.
 */
#include "kernel.h"
#include "socket.h"

/* These are inside of the kernel, and found by its description of itself. */
struct sock_common {
	__be16 skc_dport;
} __attribute__((preserve_access_index));

struct bpf_iter_meta {
	void *seq;
} __attribute__((preserve_access_index));

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk;
};

struct bpf_iter__udp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk; /* a udp_sock, which begins with one */
};

extern int bpf_sock_destroy(struct sock_common *sk) __attribute__((section(".ksyms")));

/* What became of a socket: the destination that it named, and the backend. */
struct ended {
	struct address front;
	struct address back;
};

/* Names a type for Go that no map names. */
const struct ended *ended_type __attribute__((unused));

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address);
	__type(value, __u32);
} dead SEC(".maps");

/* recall finds what became of a socket, as redirect.c remembers it. */
static __always_inline int recall(struct sock_common *sk, int tcp, struct ended *e)
{
	struct translation *t;
	struct peer *p;
	__u64 cookie;

	if (tcp) {
		cookie = bpf_get_socket_cookie(sk);
		p = place_of(cookie);
		if (p && p->cookie == cookie) {
			e->front = p->front;
			e->back = p->back;
			return 1;
		}
	}
	t = bpf_sk_storage_get(&translations, sk, 0, 0);
	if (!t || !(t->flags & TRANSLATED))
		return 0;
	e->front = t->front;
	e->back = t->back;
	return 1;
}

static __always_inline void end(struct bpf_iter_meta *meta, struct sock_common *sk, int tcp)
{
	struct ended e;

	if (!sk || !recall(sk, tcp, &e))
		return;
	/* A socket that was disconnected, or connected elsewhere behind our back,
	 * keeps what it has been told.
	 */
	if (sk->skc_dport != e.back.port)
		return;
	if (!bpf_map_lookup_elem(&dead, &e.back))
		return;
	/* Without room to tell, the kernel comes here again with the same socket. */
	if (bpf_seq_write(meta->seq, &e, sizeof(e)))
		return;
	bpf_sock_destroy(sk);
}

SEC("iter/tcp")
int end_tcp(struct bpf_iter__tcp *ctx)
{
	end(ctx->meta, ctx->sk, 1);
	return 0;
}

SEC("iter/udp")
int end_udp(struct bpf_iter__udp *ctx)
{
	end(ctx->meta, ctx->sk, 0);
	return 0;
}

/* The kernel lends what is used here to no other programs: this file may be used
 * by the GPL, version 2, as well as by the licence of all the others.
 */
char __license[] SEC("license") = "GPL and additional rights";
