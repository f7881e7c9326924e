// The guest that the cases of plugins/tck about lookup speak of, in C.
typedef unsigned int u32;
typedef unsigned long long u64;

#define HOST(name) __attribute__((import_module("portico.v1"), import_name(#name)))
#define EXPORT(name) __attribute__((export_name(#name)))
#define TEXT(s) s, sizeof(s) - 1

HOST(attr_get) u64 attr_get(u32 id, char *buf, u32 limit);
HOST(header_get) u64 header_get(const char *name, u32 length, char *buf, u32 limit);
HOST(warn) void warn(const char *text, u32 length);
HOST(object_set) int object_set(const char *pointer, u32 length, const char *json, u32 json_length);
HOST(lookup) u64 lookup(const char *resource, u32 resource_length, const char *space, u32 space_length, const char *name, u32 name_length,
	const char *pointer, u32 pointer_length, char *buf, u32 limit);

static char space[64], buffer[256];

static int is(u64 result, const char *want, u32 length) {
	if (result >> 32 != 4 || (u32)result != length) return 0;
	for (u32 i = 0; i < length; i++)
		if (buffer[i] != want[i]) return 0;
	return 1;
}

EXPORT(portico_abi_v1) void portico_abi_v1(void) {}

EXPORT(on_request) int on_request(void) {
	u32 in = (u32)attr_get(10, space, sizeof space);
	u64 what = header_get(TEXT("X-Case"), buffer, sizeof buffer);
	if (is(what, TEXT("label"))) {
		u64 team = lookup(TEXT("namespaces"), TEXT(""), space, in, TEXT("/metadata/labels/team"), buffer, sizeof buffer);
		warn(buffer, (u32)team);
	}
	if (is(what, TEXT("nested"))) {
		u64 kind = lookup(TEXT("deployments.apps"), space, in, TEXT("web"), TEXT("/spec/template/kind"), buffer, sizeof buffer);
		warn(buffer, (u32)kind);
	}
	if (is(what, TEXT("missing")) && lookup(TEXT("namespaces"), TEXT(""), TEXT("elsewhere"), TEXT(""), buffer, 0) >> 32 == 0)
		warn(TEXT("none"));
	if (is(what, TEXT("elsewhere")) && lookup(TEXT("deployments.apps"), TEXT("bank"), TEXT("web"), TEXT(""), buffer, 0) >> 32 != 0)
		warn(TEXT("not declared"));
	if (is(what, TEXT("undeclared")) && lookup(TEXT("secrets"), space, in, TEXT("token"), TEXT(""), buffer, 0) >> 32 != 0)
		warn(TEXT("not declared"));
	return 0;
}

EXPORT(on_object) int on_object(void) {
	u32 in = (u32)attr_get(10, space, sizeof space);
	u64 team = lookup(TEXT("namespaces"), TEXT(""), space, in, TEXT("/metadata/labels/team"), buffer + 1, sizeof buffer - 2);
	if (team >> 32 != 4) return 0;
	buffer[0] = buffer[1 + (u32)team] = '"'; // a label needs no escapes
	if (object_set(TEXT("/metadata/labels/team"), buffer, (u32)team + 2) != 0) return 9;
	return 2;
}
