// The guest that the cases of plugins/tck speak of, in C: no library, no malloc.
#include "portico.h"

static char buffer[256];

static int same(const char *a, const char *b, u32 length) {
	for (u32 i = 0; i < length; i++)
		if (a[i] != b[i]) return 0;
	return 1;
}

static int is(u64 result, const char *want, u32 length) {
	return result >> 32 == 4 && (u32)result == length && same(buffer, want, length);
}

i32 configure(void) {
	if (portico_config_get(PORTICO_TEXT(""), buffer, sizeof buffer) >> 32 == 5) return 0;
	portico_fail(PORTICO_TEXT("the configuration must be an object"));
	return 1;
}

i32 on_request(void) {
	u64 what = portico_header_get(PORTICO_TEXT("X-Case"), buffer, sizeof buffer);
	if (is(what, PORTICO_TEXT("deny"))) {
		portico_respond(403, PORTICO_TEXT("Forbidden"), PORTICO_TEXT("not here"), 0);
		return 1;
	}
	if (is(what, PORTICO_TEXT("slow"))) {
		portico_respond(429, PORTICO_TEXT("TooManyRequests"), PORTICO_TEXT("slower"), 7);
		return 1;
	}
	if (is(what, PORTICO_TEXT("warn"))) {
		u64 user = portico_attr_get(1, buffer, sizeof buffer);
		portico_warn(buffer, (u32)user);
	}
	if (is(what, PORTICO_TEXT("param"))) {
		u64 value = portico_param_get(PORTICO_TEXT("fieldManager"), buffer, sizeof buffer);
		portico_warn(buffer, (u32)value);
	}
	if (is(what, PORTICO_TEXT("config"))) {
		u64 value = portico_config_get(PORTICO_TEXT("/greeting"), buffer, sizeof buffer);
		portico_warn(buffer, (u32)value);
	}
	if (is(what, PORTICO_TEXT("group"))) {
		u64 groups = portico_attr_get(3, buffer, sizeof buffer);
		int devs = groups >> 32 == 6 && (u32)groups == 8 && same(buffer, "[\"devs\"]", 8);
		if (devs) portico_warn(PORTICO_TEXT("true false"));
	}
	if (is(what, PORTICO_TEXT("credential")) && portico_header_get(PORTICO_TEXT("authorization"), buffer, sizeof buffer) >> 32 != 0)
		portico_warn(PORTICO_TEXT("leaked"));
	return 0;
}

i32 on_object(void) {
	u64 hide = portico_object_get(PORTICO_TEXT("/metadata/labels/hide"), buffer, sizeof buffer);
	if (is(hide, PORTICO_TEXT("yes"))) {
		portico_respond(403, PORTICO_TEXT("Forbidden"), PORTICO_TEXT("hidden"), 0);
		return 1;
	}
	if (is(hide, PORTICO_TEXT("rename"))) {
		if (portico_object_set(PORTICO_TEXT("/metadata/name"), PORTICO_TEXT("\"other\"")) != 3) return 9;
		return 0;
	}
	if (portico_object_get(PORTICO_TEXT("/metadata/annotations/secret"), buffer, sizeof buffer) >> 32 != 0) {
		if (portico_object_remove(PORTICO_TEXT("/metadata/annotations/secret")) != 0) return 9;
		return 2;
	}
	if (portico_object_get(PORTICO_TEXT("/metadata/labels/team"), buffer, sizeof buffer) >> 32 != 0) return 0;
	if (portico_object_set(PORTICO_TEXT("/metadata/labels/team"), PORTICO_TEXT("\"web\"")) != 0) return 9;
	return 2;
}
