// What guests in C import from the host of portico.v1, and what they may have for it
// to call. Include it and define the functions at the end that you want to be called;
// no library is needed. ../README.md says what all of it means.
#ifndef PORTICO_H
#define PORTICO_H

typedef int i32;
typedef long long i64;
typedef unsigned int u32;
typedef unsigned long long u64;

#define PORTICO_HOST(name) __attribute__((import_module("portico.v1"), import_name(#name)))
#define PORTICO_GUEST(name) __attribute__((export_name(#name)))

// PORTICO_TEXT is a literal with its length: two arguments.
#define PORTICO_TEXT(s) (s), (u32)(sizeof(s) - 1)

// A getter returns a u64. It writes into buf only what fits there whole.
static inline u32 portico_kind(u64 result) { return (u32)(result >> 32); }
static inline u32 portico_length(u64 result) { return (u32)result; }

// Kinds of what getters find.
enum {
	PORTICO_ABSENT = 0,
	PORTICO_NULL = 1,
	PORTICO_BOOL = 2,
	PORTICO_NUMBER = 3,
	PORTICO_STRING = 4,
	PORTICO_OBJECT = 5,
	PORTICO_ARRAY = 6,
};

// What on_request returns.
enum { PORTICO_CONTINUE = 0, PORTICO_DENY = 1 };

// What on_object returns.
enum { PORTICO_KEEP = 0, PORTICO_DROP = 1, PORTICO_PATCHED = 2 };

// Attributes of the request.
enum {
	PORTICO_USER = 1,
	PORTICO_UID = 2,
	PORTICO_GROUPS = 3,
	PORTICO_EXTRA = 4,
	PORTICO_VERB = 5,
	PORTICO_API_GROUP = 6,
	PORTICO_API_VERSION = 7,
	PORTICO_RESOURCE = 8,
	PORTICO_SUBRESOURCE = 9,
	PORTICO_NAMESPACE = 10,
	PORTICO_NAME = 11,
	PORTICO_PATH = 12,
	PORTICO_USER_AGENT = 13,
	PORTICO_SOURCE_IP = 14,
	PORTICO_LABEL_SELECTOR = 15,
	PORTICO_FIELD_SELECTOR = 16,
	PORTICO_AUDIT_ID = 17,
};

// What happened to an object.
enum { PORTICO_NO_EVENT = 0, PORTICO_ADDED = 1, PORTICO_MODIFIED = 2, PORTICO_DELETED = 3 };

// Figures about an answered request.
enum { PORTICO_END_CODE = 1, PORTICO_END_BYTES = 2, PORTICO_END_MICROS = 3 };

// Levels of the log.
enum { PORTICO_LEVEL_ERROR = 0, PORTICO_LEVEL_INFO = 1, PORTICO_LEVEL_DEBUG = 2 };

// What portico_object_set and portico_object_remove return.
enum {
	PORTICO_PATCH_OK = 0,
	PORTICO_PATCH_NOT_FOUND = 1,
	PORTICO_PATCH_INVALID = 2,
	PORTICO_PATCH_FORBIDDEN = 3,
	PORTICO_PATCH_OVERFLOWING = 4,
};

PORTICO_HOST(config_get) u64 portico_config_get(const char *pointer, u32 pointer_length, char *buf, u32 limit);
PORTICO_HOST(log_enabled) i32 portico_log_enabled(u32 level);
PORTICO_HOST(log) void portico_log(u32 level, const char *text, u32 length);
PORTICO_HOST(fail) void portico_fail(const char *text, u32 length);
PORTICO_HOST(attr_get) u64 portico_attr_get(u32 attribute, char *buf, u32 limit);
PORTICO_HOST(header_get) u64 portico_header_get(const char *name, u32 name_length, char *buf, u32 limit);
PORTICO_HOST(param_get) u64 portico_param_get(const char *name, u32 name_length, char *buf, u32 limit);
PORTICO_HOST(respond) void portico_respond(i32 code, const char *reason, u32 reason_length, const char *message, u32 message_length, i32 retry_after);
PORTICO_HOST(warn) void portico_warn(const char *text, u32 length);
PORTICO_HOST(event_type) i32 portico_event_type(void);
PORTICO_HOST(object_get) u64 portico_object_get(const char *pointer, u32 pointer_length, char *buf, u32 limit);
PORTICO_HOST(object_prev_get) u64 portico_object_prev_get(const char *pointer, u32 pointer_length, char *buf, u32 limit);
PORTICO_HOST(object_set) i32 portico_object_set(const char *pointer, u32 pointer_length, const char *json, u32 json_length);
PORTICO_HOST(object_remove) i32 portico_object_remove(const char *pointer, u32 pointer_length);
PORTICO_HOST(end_get) i64 portico_end_get(u32 figure);

// For those to whom the capability was granted: kv, clock, lookup. What is not called
// is not imported.
PORTICO_HOST(kv_get) i64 portico_kv_get(const char *key, u32 key_length);
PORTICO_HOST(kv_add) i64 portico_kv_add(const char *key, u32 key_length, i64 delta, i64 ttl_millis);
PORTICO_HOST(now_ms) i64 portico_now_ms(void);
PORTICO_HOST(lookup) u64 portico_lookup(const char *resource, u32 resource_length, const char *space, u32 space_length,
	const char *name, u32 name_length, const char *pointer, u32 pointer_length, char *buf, u32 limit);

// What the host calls. Whichever is defined is exported, and must be as it is declared
// here. The marker is there already.
__attribute__((weak)) PORTICO_GUEST(portico_abi_v1) void portico_abi_v1(void) {}
PORTICO_GUEST(_initialize) void _initialize(void);
PORTICO_GUEST(configure) i32 configure(void);
PORTICO_GUEST(on_request) i32 on_request(void);
PORTICO_GUEST(on_object) i32 on_object(void);
PORTICO_GUEST(on_end) void on_end(void);

#endif
