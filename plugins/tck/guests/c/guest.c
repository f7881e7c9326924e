// The guest that the cases of plugins/tck speak of, in C: no library, no malloc.
typedef unsigned int u32;
typedef unsigned long long u64;

#define HOST(name) __attribute__((import_module("portico.v1"), import_name(#name)))
#define EXPORT(name) __attribute__((export_name(#name)))
#define TEXT(s) s, sizeof(s) - 1

HOST(config_get) u64 config_get(const char *pointer, u32 length, char *buf, u32 limit);
HOST(fail) void fail(const char *text, u32 length);
HOST(attr_get) u64 attr_get(u32 id, char *buf, u32 limit);
HOST(header_get) u64 header_get(const char *name, u32 length, char *buf, u32 limit);
HOST(param_get) u64 param_get(const char *name, u32 length, char *buf, u32 limit);
HOST(respond) void respond(int code, const char *reason, u32 reason_length, const char *text, u32 length, int retry_after);
HOST(warn) void warn(const char *text, u32 length);
HOST(object_get) u64 object_get(const char *pointer, u32 length, char *buf, u32 limit);
HOST(object_set) int object_set(const char *pointer, u32 length, const char *json, u32 json_length);
HOST(object_remove) int object_remove(const char *pointer, u32 length);

static char buffer[256];

static int same(const char *a, const char *b, u32 length) {
	for (u32 i = 0; i < length; i++)
		if (a[i] != b[i]) return 0;
	return 1;
}

static int is(u64 result, const char *want, u32 length) {
	return result >> 32 == 4 && (u32)result == length && same(buffer, want, length);
}

EXPORT(portico_abi_v1) void portico_abi_v1(void) {}

EXPORT(configure) int configure(void) {
	if (config_get(TEXT(""), buffer, sizeof buffer) >> 32 == 5) return 0;
	fail(TEXT("the configuration must be an object"));
	return 1;
}

EXPORT(on_request) int on_request(void) {
	u64 what = header_get(TEXT("X-Case"), buffer, sizeof buffer);
	if (is(what, TEXT("deny"))) {
		respond(403, TEXT("Forbidden"), TEXT("not here"), 0);
		return 1;
	}
	if (is(what, TEXT("slow"))) {
		respond(429, TEXT("TooManyRequests"), TEXT("slower"), 7);
		return 1;
	}
	if (is(what, TEXT("warn"))) {
		u64 user = attr_get(1, buffer, sizeof buffer);
		warn(buffer, (u32)user);
	}
	if (is(what, TEXT("param"))) {
		u64 value = param_get(TEXT("fieldManager"), buffer, sizeof buffer);
		warn(buffer, (u32)value);
	}
	if (is(what, TEXT("config"))) {
		u64 value = config_get(TEXT("/greeting"), buffer, sizeof buffer);
		warn(buffer, (u32)value);
	}
	if (is(what, TEXT("group"))) {
		u64 groups = attr_get(3, buffer, sizeof buffer);
		int devs = groups >> 32 == 6 && (u32)groups == 8 && same(buffer, "[\"devs\"]", 8);
		if (devs) warn(TEXT("true false"));
	}
	if (is(what, TEXT("credential")) && header_get(TEXT("authorization"), buffer, sizeof buffer) >> 32 != 0)
		warn(TEXT("leaked"));
	return 0;
}

EXPORT(on_object) int on_object(void) {
	u64 hide = object_get(TEXT("/metadata/labels/hide"), buffer, sizeof buffer);
	if (is(hide, TEXT("yes"))) {
		respond(403, TEXT("Forbidden"), TEXT("hidden"), 0);
		return 1;
	}
	if (is(hide, TEXT("rename"))) {
		if (object_set(TEXT("/metadata/name"), TEXT("\"other\"")) != 3) return 9;
		return 0;
	}
	if (object_get(TEXT("/metadata/annotations/secret"), buffer, sizeof buffer) >> 32 != 0) {
		if (object_remove(TEXT("/metadata/annotations/secret")) != 0) return 9;
		return 2;
	}
	if (object_get(TEXT("/metadata/labels/team"), buffer, sizeof buffer) >> 32 != 0) return 0;
	if (object_set(TEXT("/metadata/labels/team"), TEXT("\"web\"")) != 0) return 9;
	return 2;
}
