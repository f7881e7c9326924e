// The guest that the cases of plugins/tck speak of, in AssemblyScript. It is built by
//
//	asc guest.ts -O3 --runtime stub --use abort= -o guest.wasm
import { ABSENT, ARRAY, fail, Found, GROUPS, OBJECT, PATCH_FORBIDDEN, refuse, remove, set, STRING, text, USER, warn } from "../../../abi/languages/portico";

export { portico_abi_v1 } from "../../../abi/languages/portico";

const found = new Found(256), case_ = new Found(64);
const xCase = text("X-Case"), authorization = text("authorization"), fieldManager = text("fieldManager");
const deny = text("deny"), slow = text("slow"), user = text("warn"), param = text("param"), config = text("config"), group = text("group");
const credential = text("credential"), leaked = text("leaked"), devs = text('["devs"]'), inDevs = text("true false");
const all = text(""), greeting = text("/greeting"), noObject = text("the configuration must be an object");
const forbidden = text("Forbidden"), tooMany = text("TooManyRequests"), notHere = text("not here"), slower = text("slower"), hidden = text("hidden");
const hide = text("/metadata/labels/hide"), team = text("/metadata/labels/team"), secret = text("/metadata/annotations/secret"), name = text("/metadata/name");
const yes = text("yes"), rename = text("rename"), other = text('"other"'), web = text('"web"');

export function configure(): i32 {
  if (found.config(all).kind == OBJECT) return 0;
  fail(noObject);
  return 1;
}

export function on_request(): i32 {
  const asked = case_.header(xCase).text;
  if (asked.is(deny)) return refuse(403, forbidden, notHere, 0);
  if (asked.is(slow)) return refuse(429, tooMany, slower, 7);
  if (asked.is(user)) warn(found.attr(USER).text);
  if (asked.is(param)) warn(found.param(fieldManager).text);
  if (asked.is(config)) warn(found.config(greeting).text);
  if (asked.is(group) && found.attr(GROUPS).kind == ARRAY && found.text.is(devs)) warn(inDevs);
  if (asked.is(credential) && found.header(authorization).kind != ABSENT) warn(leaked);
  return 0;
}

export function on_object(): i32 {
  const hides = found.object(hide).kind == STRING;
  if (hides && found.text.is(yes)) return refuse(403, forbidden, hidden, 0);
  if (hides && found.text.is(rename)) return set(name, other) == PATCH_FORBIDDEN ? 0 : 9;
  if (found.object(secret).kind != ABSENT) return remove(secret) == 0 ? 2 : 9;
  if (found.object(team).kind != ABSENT) return 0;
  return set(team, web) == 0 ? 2 : 9;
}
