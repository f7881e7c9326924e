// A guest of http_handler, in C: it does what the request's header X-Case says.
typedef unsigned int u32;
typedef unsigned long long u64;

#define HOST(name) __attribute__((import_module("http_handler"), import_name(#name)))
#define EXPORT(name) __attribute__((export_name(#name)))
#define TEXT(s) s, sizeof(s) - 1
enum { REQUEST, RESPONSE };

HOST(enable_features) u32 enable_features(u32 features);
HOST(get_config) u32 get_config(char *buf, u32 limit);
HOST(get_method) u32 get_method(char *buf, u32 limit);
HOST(get_uri) u32 get_uri(char *buf, u32 limit);
HOST(set_uri) void set_uri(const char *uri, u32 length);
HOST(get_source_addr) u32 get_source_addr(char *buf, u32 limit);
HOST(get_protocol_version) u32 get_protocol_version(char *buf, u32 limit);
HOST(get_header_names) u64 get_header_names(u32 kind, char *buf, u32 limit);
HOST(get_header_values) u64 get_header_values(u32 kind, const char *name, u32 length, char *buf, u32 limit);
HOST(set_header_value) void set_header_value(u32 kind, const char *name, u32 length, const char *value, u32 value_length);
HOST(add_header_value) void add_header_value(u32 kind, const char *name, u32 length, const char *value, u32 value_length);
HOST(remove_header) void remove_header(u32 kind, const char *name, u32 length);
HOST(read_body) u64 read_body(u32 kind, char *buf, u32 limit);
HOST(write_body) void write_body(u32 kind, const char *text, u32 length);
HOST(get_status_code) u32 get_status_code(void);
HOST(set_status_code) void set_status_code(u32 code);

static char buffer[64 << 10];
static char name[32];

EXPORT(_initialize) void initialize(void) {
	if (enable_features(7) != 3) __builtin_trap();
}

static int same(const char *a, const char *b, u32 length) {
	for (u32 i = 0; i < length; i++)
		if (a[i] != b[i]) return 0;
	return 1;
}

// is reports whether the case is the one named.
static int is(const char *want, u32 length) {
	u64 got = get_header_values(REQUEST, TEXT("x-case"), name, sizeof name);
	return got == (1ULL << 32 | (length + 1)) && same(name, want, length);
}

// whole reads a body.
static u32 whole(u32 kind) {
	u32 length = 0;
	for (;;) {
		u64 got = read_body(kind, buffer + length, length + 100 < sizeof buffer ? 100 : 0);
		length += (u32)got;
		if (got >> 32) return length;
	}
}

// dye makes everything red blue.
static void dye(u32 kind) {
	u32 length = whole(kind), written = 0;
	for (u32 i = 0; i + 3 <= length; i++) {
		if (!same(buffer + i, "red", 3)) continue;
		write_body(kind, buffer + written, i - written);
		write_body(kind, TEXT("blue"));
		written = i + 3;
	}
	write_body(kind, buffer + written, length - written);
}

// seen tells upstream, in a header, what the guest sees.
static void seen(const char *header, u32 header_length, u32 length) {
	for (u32 i = 0; i < length; i++)
		if (!buffer[i]) buffer[i] = ' ';
	set_header_value(REQUEST, header, header_length, buffer, length);
}

EXPORT(handle_request) u64 handle_request(void) {
	if (is(TEXT("refuse"))) {
		set_status_code(429);
		set_header_value(RESPONSE, TEXT("Retry-After"), TEXT("7"));
		write_body(RESPONSE, TEXT("not "));
		write_body(RESPONSE, TEXT("here\n"));
		return 0;
	}
	if (is(TEXT("status"))) {
		set_status_code(404);
		write_body(RESPONSE, TEXT("{\"kind\":\"Status\",\"message\":\"no such thing\",\"reason\":\"NotFound\"}"));
		return 0;
	}
	if (is(TEXT("answer"))) {
		write_body(RESPONSE, TEXT("as if I were the API server"));
		return 0;
	}
	if (is(TEXT("both"))) write_body(RESPONSE, TEXT("both"));
	if (is(TEXT("stamp"))) {
		set_header_value(REQUEST, TEXT("x-stamp"), TEXT("one"));
		add_header_value(REQUEST, TEXT("X-Stamp"), TEXT("two"));
		remove_header(REQUEST, TEXT("X-Gone"));
		set_header_value(RESPONSE, TEXT("X-Early"), TEXT("yes"));
		set_uri(buffer, get_uri(buffer, sizeof buffer));
	}
	if (is(TEXT("dye"))) dye(REQUEST);
	if (is(TEXT("look"))) {
		seen(TEXT("X-Names"), (u32)get_header_names(REQUEST, buffer, sizeof buffer));
		seen(TEXT("X-Many"), (u32)get_header_values(REQUEST, TEXT("x-many"), buffer, sizeof buffer));
		seen(TEXT("X-Token"), (u32)get_header_values(REQUEST, TEXT("AUTHORIZATION"), buffer, sizeof buffer));
		seen(TEXT("X-Trailers"), (u32)get_header_names(2, buffer, sizeof buffer));
		seen(TEXT("X-Method"), get_method(buffer, sizeof buffer));
		seen(TEXT("X-Uri"), get_uri(buffer, sizeof buffer));
		seen(TEXT("X-Protocol"), get_protocol_version(buffer, sizeof buffer));
		seen(TEXT("X-Source"), get_source_addr(buffer, sizeof buffer));
		seen(TEXT("X-Config"), get_config(buffer, sizeof buffer));
	}
	return 7ULL << 32 | 1;
}

EXPORT(handle_response) void handle_response(u32 context, u32 is_error) {
	if (context != 7 || is_error) return;
	if (is(TEXT("paint"))) {
		dye(RESPONSE);
		set_header_value(RESPONSE, TEXT("X-Painted"), TEXT("yes"));
		remove_header(RESPONSE, TEXT("X-Upstream"));
	}
	if (is(TEXT("hide")) && get_status_code() == 200) {
		set_status_code(404);
		write_body(RESPONSE, TEXT("nothing to see"));
	}
	if (is(TEXT("forge"))) set_status_code(201);
}
