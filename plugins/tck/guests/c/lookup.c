// The guest that the cases of plugins/tck about lookup speak of, in C.
#include "portico.h"

static char space[64], buffer[256];

static int is(u64 result, const char *want, u32 length) {
	if (result >> 32 != 4 || (u32)result != length) return 0;
	for (u32 i = 0; i < length; i++)
		if (buffer[i] != want[i]) return 0;
	return 1;
}

i32 on_request(void) {
	u32 in = (u32)portico_attr_get(10, space, sizeof space);
	u64 what = portico_header_get(PORTICO_TEXT("X-Case"), buffer, sizeof buffer);
	if (is(what, PORTICO_TEXT("label"))) {
		u64 team = portico_lookup(PORTICO_TEXT("namespaces"), PORTICO_TEXT(""), space, in, PORTICO_TEXT("/metadata/labels/team"), buffer, sizeof buffer);
		portico_warn(buffer, (u32)team);
	}
	if (is(what, PORTICO_TEXT("nested"))) {
		u64 kind = portico_lookup(PORTICO_TEXT("deployments.apps"), space, in, PORTICO_TEXT("web"), PORTICO_TEXT("/spec/template/kind"), buffer, sizeof buffer);
		portico_warn(buffer, (u32)kind);
	}
	if (is(what, PORTICO_TEXT("missing")) && portico_lookup(PORTICO_TEXT("namespaces"), PORTICO_TEXT(""), PORTICO_TEXT("elsewhere"), PORTICO_TEXT(""), buffer, 0) >> 32 == 0)
		portico_warn(PORTICO_TEXT("none"));
	if (is(what, PORTICO_TEXT("elsewhere")) && portico_lookup(PORTICO_TEXT("deployments.apps"), PORTICO_TEXT("bank"), PORTICO_TEXT("web"), PORTICO_TEXT(""), buffer, 0) >> 32 != 0)
		portico_warn(PORTICO_TEXT("not declared"));
	if (is(what, PORTICO_TEXT("undeclared")) && portico_lookup(PORTICO_TEXT("secrets"), space, in, PORTICO_TEXT("token"), PORTICO_TEXT(""), buffer, 0) >> 32 != 0)
		portico_warn(PORTICO_TEXT("not declared"));
	return 0;
}

i32 on_object(void) {
	u32 in = (u32)portico_attr_get(10, space, sizeof space);
	u64 team = portico_lookup(PORTICO_TEXT("namespaces"), PORTICO_TEXT(""), space, in, PORTICO_TEXT("/metadata/labels/team"), buffer + 1, sizeof buffer - 2);
	if (team >> 32 != 4) return 0;
	buffer[0] = buffer[1 + (u32)team] = '"'; // a label needs no escapes
	if (portico_object_set(PORTICO_TEXT("/metadata/labels/team"), buffer, (u32)team + 2) != 0) return 9;
	return 2;
}
