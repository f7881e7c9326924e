//go:build ignore

/* Where a socket's connections and datagrams go, decided when it names a
 * destination, and undone when it asks where they went.
 *
 * A destination is looked up once. Most are not in the table and pay for that
 * one lookup. One that is has up to two layers: a policy and a Service. The
 * policy wins as long as its lease runs and the client is one it concerns;
 * otherwise the Service does, or, without one, nobody, and the destination
 * stays what it was.
 */
#include "kernel.h"
#include "socket.h"

enum layer_flag {
	PRESENT = 1,
	LEASED = 2,      /* counts only while the lease runs */
	STRICT = 4,      /* refuses when its lease has run out */
	BY_CGROUP = 8,   /* affinity is the cgroup's, not the network namespace's */
	HOST_ONLY = 16,   /* counts only in the host's network namespace */
};
enum verdict { PASSED, POLICY, SERVICE, REFUSED };

enum { PROCEED = 1, REFUSE = 0 };
enum { MAX_LEVEL = 16, EXEMPT = 0 };

/* A set of backends never changes; another choice is another set. */
struct layer {
	__u32 set;
	__u32 count;
	enum layer_flag flags;
	__u32 affinity; /* seconds; 0: none */
	__u32 owner;    /* affinity is kept per owner */
	__u32 clients;  /* class that it is for; 0: everybody */
	__u32 except;   /* class that it is not for; 0: nobody */
	struct address only; /* the backend, where count is 1: nobody needs to look for it */
};

/* Elements are recycled under readers: tag, a function of the key, is first and
 * last, so that a reader notices.
 */
struct frontend {
	__u32 tag;
	__u32 id;
	__u32 pad;
	struct layer policy;
	struct layer service;
	__u32 tag_end;
};

struct slot {
	__u32 set;
	__u32 index;
};

struct backend {
	struct address address;
	__u32 id;
	__u32 set;
};

struct member {
	__u32 set;
	__u32 backend;
};

struct class {
	__u64 cgroup;
	__u32 class;
	__u32 pad;
};

struct settings {
	__u64 host_netns;
	__u32 mark;   /* sockets with it are not for policies; 0: none */
	__u32 sample; /* one of so many verdicts becomes an event; 0: none */
	__u32 exempt; /* whether any cgroup is in class EXEMPT */
	__u32 pad;
};

struct counters {
	__u64 policy;
	__u64 service;
	__u64 refused;
	__u64 passed;
	__u64 lapsed;
	__u64 exempt;
};

struct name {
	__u8 text[128];
};

struct client {
	__u64 id;
	__u32 owner;
	__u32 pad;
};

struct choice {
	__u64 at; /* ns, CLOCK_MONOTONIC_COARSE */
	__u32 backend;
	__u32 pad;
};

struct flow {
	__u64 cookie;
	struct address back;
	__u32 pad;
};

struct event {
	__u64 at;
	__u64 cgroup;
	__u64 netns;
	struct address front;
	struct address back;
	__u32 frontend;
	__u32 pid;
	enum verdict verdict;
	__u8 command[16];
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address);
	__type(value, struct frontend);
} frontends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 524288);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct slot);
	__type(value, struct backend);
} backends SEC(".maps");

/* Which slot of a set a backend has; filled where a choice can be remembered. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 524288);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct member);
	__type(value, __u32);
} members SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct counters);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct class);
	__type(value, __u32);
} classes SEC(".maps");

/* What owners are called, for people: the programs do not look here. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct name);
} owners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

/* Apart from the settings: it is written several times a second. In ns of
 * CLOCK_MONOTONIC.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} lease SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct client);
	__type(value, struct choice);
} affinity SEC(".maps");

/* Where datagrams went that the socket does not remember, being busy with
 * another destination.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow);
	__type(value, struct address);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 262144);
} events SEC(".maps");

/* Whether the kernel has Multipath TCP, and a way from a path to the whole. */
const volatile __u32 multipath;

/* Names a type for Go that no map names. */
const struct event *event_type __attribute__((unused));

static __always_inline int equal(const struct address *a, const struct address *b)
{
	return a->ip[3] == b->ip[3] && a->port == b->port && a->ip[2] == b->ip[2] &&
	       a->ip[1] == b->ip[1] && a->ip[0] == b->ip[0];
}

static __always_inline __u32 tag_of(const struct address *a)
{
	__u32 h = a->ip[0];

	h = h * 31 + a->ip[1];
	h = h * 31 + a->ip[2];
	h = h * 31 + a->ip[3];
	return h * 31 + (((__u32)a->port << 16) | a->protocol);
}

/* 0 for what is never redirected: ping sockets have these hooks too. */
static __always_inline __u16 protocol_of(const struct bpf_sock_addr *ctx)
{
	switch (ctx->protocol) {
	case IPPROTO_TCP:
	case IPPROTO_MPTCP:
		return IPPROTO_TCP;
	case IPPROTO_UDP:
		return IPPROTO_UDP;
	}
	return 0;
}

static __always_inline void read4(const struct bpf_sock_addr *ctx, struct address *a)
{
	a->ip[0] = 0;
	a->ip[1] = 0;
	a->ip[2] = bpf_htonl(0xffff);
	a->ip[3] = ctx->user_ip4;
	a->port = ctx->user_port;
	a->protocol = protocol_of(ctx);
}

static __always_inline void read6(const struct bpf_sock_addr *ctx, struct address *a)
{
	a->ip[0] = ctx->user_ip6[0];
	a->ip[1] = ctx->user_ip6[1];
	a->ip[2] = ctx->user_ip6[2];
	a->ip[3] = ctx->user_ip6[3];
	a->port = ctx->user_port;
	a->protocol = protocol_of(ctx);
}

static __always_inline void write4(struct bpf_sock_addr *ctx, const struct address *a)
{
	ctx->user_ip4 = a->ip[3];
	ctx->user_port = a->port;
}

static __always_inline void write6(struct bpf_sock_addr *ctx, const struct address *a)
{
	ctx->user_ip6[0] = a->ip[0];
	ctx->user_ip6[1] = a->ip[1];
	ctx->user_ip6[2] = a->ip[2];
	ctx->user_ip6[3] = a->ip[3];
	ctx->user_port = a->port;
}

static __always_inline int in_class(__u64 cgroup, __u32 class)
{
	struct class key = {.cgroup = cgroup, .class = class};

	return bpf_map_lookup_elem(&classes, &key) != 0;
}

/* Whether the process is in one of the cgroups of a class, or below one. */
static __noinline int current_in(__u32 class)
{
	for (int level = 0; level < MAX_LEVEL; level++) {
		__u64 cgroup = bpf_get_current_ancestor_cgroup_id(level);

		if (!cgroup)
			return 0;
		if (in_class(cgroup, class))
			return 1;
	}
	return 0;
}

static __always_inline int here(struct bpf_sock_addr *ctx, const struct layer *l, const struct settings *s)
{
	return !(l->flags & HOST_ONLY) || bpf_get_netns_cookie(ctx) == s->host_netns;
}

static __always_inline int concerned(struct bpf_sock_addr *ctx, const struct layer *policy,
				     const struct settings *s)
{
	if (!here(ctx, policy, s))
		return 0;
	if (s->mark && ctx->sk->mark == s->mark)
		return 0;
	if (s->exempt && current_in(EXEMPT))
		return 0;
	if (policy->except && current_in(policy->except))
		return 0;
	return !policy->clients || current_in(policy->clients);
}

static __always_inline int running(const struct layer *l)
{
	__u32 zero = 0;
	__u64 *until;

	if (!(l->flags & LEASED))
		return 1;
	until = bpf_map_lookup_elem(&lease, &zero);
	return until && *until > bpf_ktime_get_coarse_ns();
}

/* decide says which layer answers for a destination: PASSED if none does, and
 * REFUSED if a policy wants it so.
 */
static __always_inline enum verdict decide(struct bpf_sock_addr *ctx, const struct frontend *f,
					   struct counters *n)
{
	__u32 zero = 0;
	const struct settings *s = bpf_map_lookup_elem(&settings, &zero);

	if (!s)
		return PASSED;
	if (f->policy.flags & PRESENT) {
		if (!concerned(ctx, &f->policy, s)) {
			__sync_fetch_and_add(&n->exempt, 1);
		} else if (running(&f->policy)) {
			return POLICY;
		} else {
			__sync_fetch_and_add(&n->lapsed, 1);
			if (f->policy.flags & STRICT)
				return REFUSED;
		}
	}
	if (!(f->service.flags & PRESENT) || !here(ctx, &f->service, s))
		return PASSED;
	return SERVICE;
}

static __always_inline struct backend *at(__u32 set, __u32 index)
{
	struct slot key = {.set = set, .index = index};
	struct backend *b = bpf_map_lookup_elem(&backends, &key);

	return b && b->set == set ? b : 0;
}

static __always_inline struct backend *remembered(__u32 set, __u32 backend)
{
	struct member key = {.set = set, .backend = backend};
	__u32 *index = bpf_map_lookup_elem(&members, &key);

	return index ? at(set, *index) : 0;
}

/* A socket's datagrams keep to one backend without anything being remembered. */
static __always_inline __u32 spread(struct bpf_sock_addr *ctx, const struct address *front,
				    const struct layer *l)
{
	__u64 h;

	if (front->protocol == IPPROTO_TCP)
		return bpf_get_prandom_u32() % l->count;
	h = (bpf_get_socket_cookie(ctx) + l->owner) * 0x9e3779b97f4a7c15ULL;
	return (__u32)(h >> 32) % l->count;
}

static __always_inline __u64 client_of(struct bpf_sock_addr *ctx, const struct layer *l)
{
	if (l->flags & BY_CGROUP)
		return bpf_get_current_cgroup_id();
	return bpf_get_netns_cookie(ctx);
}

static __always_inline struct backend *pick(struct bpf_sock_addr *ctx, const struct address *front,
					    const struct layer *l)
{
	struct client who = {.owner = l->owner};
	struct choice now = {}, *before;
	struct backend *b = 0;

	if (!l->affinity)
		return at(l->set, spread(ctx, front, l));

	who.id = client_of(ctx, l);
	now.at = bpf_ktime_get_coarse_ns();
	before = bpf_map_lookup_elem(&affinity, &who);
	/* Another processor may have chosen since the clock was read. */
	if (before && (__s64)(now.at - before->at) < (__s64)(l->affinity * 1000000000ULL))
		b = remembered(l->set, before->backend);
	if (!b)
		b = at(l->set, spread(ctx, front, l));
	if (!b)
		return 0;
	now.backend = b->id;
	bpf_map_update_elem(&affinity, &who, &now, 0);
	return b;
}

static __always_inline void report(struct bpf_sock_addr *ctx, const struct address *front,
				   const struct address *back, __u32 frontend, enum verdict v)
{
	__u32 zero = 0;
	const struct settings *s = bpf_map_lookup_elem(&settings, &zero);
	struct event *e;

	if (!s || !s->sample || bpf_get_prandom_u32() % s->sample)
		return;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e)
		return;
	e->at = bpf_ktime_get_coarse_ns();
	e->cgroup = bpf_get_current_cgroup_id();
	e->netns = bpf_get_netns_cookie(ctx);
	e->front = *front;
	e->back = *back;
	e->frontend = frontend;
	e->pid = bpf_get_current_pid_tgid() >> 32;
	e->verdict = v;
	e->pad = 0;
	bpf_get_current_comm(e->command, sizeof(e->command));
	bpf_ringbuf_submit(e, 0);
}

/* A row may be recycled while it is being copied. */
static __always_inline int whole(const struct frontend *f, const struct address *front)
{
	__u32 tag = tag_of(front);

	return f->tag == tag && f->tag_end == tag;
}

/* An unconnected socket talks to whom it likes: keep the last destination at
 * the socket, and move the one before out of the way.
 */
static __always_inline struct backend *resume(struct bpf_sock_addr *ctx, const struct address *front,
					      const struct layer *l)
{
	const struct translation *t = bpf_sk_storage_get(&translations, ctx->sk, 0, 0);

	if (!t || !(t->flags & STICKY) || !equal(&t->sticky_front, front))
		return 0;
	return remembered(l->set, t->sticky_id);
}

static __always_inline void stick(struct bpf_sock_addr *ctx, const struct address *front,
				  const struct backend *b)
{
	struct translation *t = bpf_sk_storage_get(&translations, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	struct flow key = {};

	if (!t)
		return;
	if ((t->flags & STICKY) && !equal(&t->sticky_back, &b->address)) {
		key.cookie = bpf_get_socket_cookie(ctx);
		key.back = t->sticky_back;
		bpf_map_update_elem(&flows, &key, &t->sticky_front, 0);
	}
	t->sticky_front = *front;
	t->sticky_back = b->address;
	t->sticky_id = b->id;
	t->flags |= STICKY;
}

static __always_inline int refuse(struct bpf_sock_addr *ctx, const struct address *front,
				  const struct frontend *f, struct counters *n)
{
	struct address none = {};

	__sync_fetch_and_add(&n->refused, 1);
	report(ctx, front, &none, f->id, REFUSED);
	bpf_set_retval(-ECONNREFUSED);
	return REFUSE;
}

/* The socket that a program has opened, where the one that connects is but a path of
 * it.
 */
static __always_inline struct mptcp_sock *whole_of(struct bpf_sock_addr *ctx, const struct address *front)
{
	if (!multipath || front->protocol != IPPROTO_TCP)
		return 0;
	return bpf_skc_to_mptcp_sock(ctx->sk);
}

/* forget leaves nothing at a socket that connects to what is not translated. A path
 * that has nothing is one more path of its whole, which is where it was.
 */
static __always_inline void forget(struct bpf_sock_addr *ctx, const struct address *front)
{
	struct translation *t = bpf_sk_storage_get(&translations, ctx->sk, 0, 0);
	struct mptcp_sock *all;
	struct peer *p;
	__u64 cookie;

	if (t) {
		t->flags = 0;
		all = whole_of(ctx, front);
		if (all && (t = bpf_sk_storage_get(&translations, all, 0, 0)))
			t->flags = 0;
	}
	if (front->protocol != IPPROTO_TCP)
		return;
	cookie = bpf_get_socket_cookie(ctx);
	p = place_of(cookie);
	if (p && p->cookie == cookie)
		p->cookie = 0;
}

/* Nobody but the socket itself, which is locked, looks at a place that is its own. */
static __always_inline int take_place(struct bpf_sock_addr *ctx, const struct address *front,
				      const struct address *back)
{
	__u64 cookie = bpf_get_socket_cookie(ctx);
	struct peer *p = place_of(cookie);

	if (!p)
		return 0;
	if (p->cookie != cookie && __sync_val_compare_and_swap(&p->cookie, 0, cookie))
		return 0;
	p->front = *front;
	p->back = *back;
	return 1;
}

static __always_inline void fill(struct translation *t, const struct address *front,
				 const struct address *back)
{
	if (!t)
		return;
	t->front = *front;
	t->back = *back;
	t->flags |= TRANSLATED;
}

/* remember keeps who a socket is connected to. A path is closed without a word, so
 * it has no place; it is the whole that is asked for its peer.
 */
static __always_inline void remember(struct bpf_sock_addr *ctx, const struct address *front,
				     const struct address *back)
{
	struct mptcp_sock *all = whole_of(ctx, front);

	if (all)
		fill(bpf_sk_storage_get(&translations, all, 0, BPF_SK_STORAGE_GET_F_CREATE), front, back);
	else if (front->protocol == IPPROTO_TCP && take_place(ctx, front, back))
		return;
	fill(bpf_sk_storage_get(&translations, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE), front, back);
}

/* connect_to and send_to fill back, and return 0 if the backends are no longer
 * there.
 */
static __always_inline int connect_to(struct bpf_sock_addr *ctx, const struct address *front,
				      const struct layer *l, struct address *back)
{
	struct backend *b;

	if (l->count == 1 && !l->affinity) {
		*back = l->only;
	} else {
		b = pick(ctx, front, l);
		if (!b)
			return 0;
		*back = b->address;
	}
	remember(ctx, front, back);
	return 1;
}

static __always_inline int send_to(struct bpf_sock_addr *ctx, const struct address *front,
				   const struct layer *l, struct address *back)
{
	struct backend *b = resume(ctx, front, l);

	if (!b)
		b = pick(ctx, front, l);
	if (!b)
		return 0;
	*back = b->address;
	stick(ctx, front, b);
	return 1;
}

static __always_inline int is_peer(struct bpf_sock_addr *ctx, const struct address *to)
{
	struct translation *t = bpf_sk_storage_get(&translations, ctx->sk, 0, 0);

	return t && (t->flags & TRANSLATED) && equal(&t->back, to);
}

/* go translates a destination. It returns PROCEED, with back filled if the
 * destination is to be replaced, or REFUSE.
 */
static __always_inline int go(struct bpf_sock_addr *ctx, const struct frontend *f,
			      const struct address *front, struct address *back, int connect)
{
	const struct layer *l;
	struct counters *n;
	enum verdict v;

	n = bpf_map_lookup_elem(&counts, &f->id);
	if (!n)
		return PROCEED;
	/* A connected dual-stack socket passes here with each datagram, to the peer that
	 * was chosen when it connected.
	 */
	if (!connect && is_peer(ctx, front))
		return PROCEED;
	v = decide(ctx, f, n);
	if (v == REFUSED)
		return refuse(ctx, front, f, n);
	if (v == PASSED) {
		__sync_fetch_and_add(&n->passed, 1);
		if (connect)
			forget(ctx, front);
		report(ctx, front, front, f->id, PASSED);
		return PROCEED;
	}
	l = v == POLICY ? &f->policy : &f->service;
	if (!l->count)
		return refuse(ctx, front, f, n);
	if (!(connect ? connect_to(ctx, front, l, back) : send_to(ctx, front, l, back)))
		return -1;
	__sync_fetch_and_add(v == POLICY ? &n->policy : &n->service, 1);
	report(ctx, front, back, f->id, v);
	return PROCEED;
}

/* A set may be gone a moment after its row was copied: the row says by now
 * where to look instead. If that happens twice in a row, the destination stays
 * what it was.
 */
static __noinline int translate(struct bpf_sock_addr *ctx, struct address *front, struct address *back,
				int connect)
{
	if (!front || !back)
		return PROCEED;
	for (int attempt = 0; attempt < 2; attempt++) {
		struct frontend *row = bpf_map_lookup_elem(&frontends, front);
		struct frontend f;
		int answer;

		if (!row) {
			if (connect)
				forget(ctx, front);
			return PROCEED;
		}
		f = *row;
		if (!whole(&f, front))
			continue;
		answer = go(ctx, &f, front, back, connect);
		if (answer >= 0)
			return answer;
	}
	return PROCEED;
}

static __always_inline int forward4(struct bpf_sock_addr *ctx, int connect)
{
	struct address front, back = {};
	int answer;

	read4(ctx, &front);
	if (!front.protocol)
		return PROCEED;
	answer = translate(ctx, &front, &back, connect);
	if (back.port)
		write4(ctx, &back);
	return answer;
}

static __always_inline int forward6(struct bpf_sock_addr *ctx, int connect)
{
	struct address front, back = {};
	int answer;

	read6(ctx, &front);
	if (!front.protocol)
		return PROCEED;
	answer = translate(ctx, &front, &back, connect);
	if (back.port)
		write6(ctx, &back);
	return answer;
}

/* source finds which destination stands for where a datagram came from. Every
 * server that receives datagrams passes here, and leaves at the first line.
 */
static __noinline int source(struct bpf_sock_addr *ctx, struct address *a)
{
	struct translation *t = bpf_sk_storage_get(&translations, ctx->sk, 0, 0);
	struct flow key = {};
	struct address *front;

	if (!t || !a)
		return 0;
	if ((t->flags & TRANSLATED) && equal(&t->back, a)) {
		*a = t->front;
		return 1;
	}
	if (!(t->flags & STICKY))
		return 0;
	if (equal(&t->sticky_back, a)) {
		*a = t->sticky_front;
		return 1;
	}
	key.cookie = bpf_get_socket_cookie(ctx);
	key.back = *a;
	front = bpf_map_lookup_elem(&flows, &key);
	if (!front)
		return 0;
	*a = *front;
	return 1;
}

/* peer_at is peer for a socket that has a place: it has nothing else. */
static __always_inline int peer_at(const struct peer *p, struct address *a)
{
	if (!equal(&p->back, a))
		return 0;
	*a = p->front;
	return 1;
}

static __noinline int peer(struct bpf_sock_addr *ctx, struct address *a)
{
	struct translation *t;
	struct peer *p;
	__u64 cookie;

	if (!a)
		return 0;
	if (a->protocol == IPPROTO_TCP) {
		cookie = bpf_get_socket_cookie(ctx);
		p = place_of(cookie);
		if (p && p->cookie == cookie)
			return peer_at(p, a);
	}
	t = bpf_sk_storage_get(&translations, ctx->sk, 0, 0);
	if (!t || !(t->flags & TRANSLATED) || !equal(&t->back, a))
		return 0;
	*a = t->front;
	return 1;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	return forward4(ctx, 1);
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	return forward6(ctx, 1);
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	return forward4(ctx, 0);
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	return forward6(ctx, 0);
}

SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	struct address a;

	read4(ctx, &a);
	if (source(ctx, &a))
		write4(ctx, &a);
	return PROCEED;
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	struct address a;

	read6(ctx, &a);
	if (source(ctx, &a))
		write6(ctx, &a);
	return PROCEED;
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	struct address a;

	read4(ctx, &a);
	if (peer(ctx, &a))
		write4(ctx, &a);
	return PROCEED;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	struct address a;

	read6(ctx, &a);
	if (peer(ctx, &a))
		write6(ctx, &a);
	return PROCEED;
}

/* A socket's place is free when the socket is. */
SEC("cgroup/sock_release")
int release(struct bpf_sock *ctx)
{
	struct peer *p;
	__u64 cookie;

	if (ctx->type != SOCK_STREAM)
		return PROCEED;
	cookie = bpf_get_socket_cookie(ctx);
	p = place_of(cookie);
	if (p && p->cookie == cookie)
		p->cookie = 0;
	return PROCEED;
}

char __license[] SEC("license") = "Apache-2.0";
