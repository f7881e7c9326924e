// The guest that the cases of plugins/tck about lookup speak of, in AssemblyScript.
import { ABSENT, Found, NAMESPACE, set, STRING, Text, text, warn } from "../../../abi/languages/portico";

export { portico_abi_v1 } from "../../../abi/languages/portico";

const found = new Found(256), case_ = new Found(64), here = new Found(64);
const xCase = text("X-Case"), label = text("label"), nested = text("nested"), missing = text("missing"), undeclared = text("undeclared"), inBank = text("elsewhere");
const namespaces = text("namespaces"), deployments = text("deployments.apps"), secrets = text("secrets");
const none = text(""), web = text("web"), token = text("token"), bank = text("bank"), elsewhere = text("elsewhere");
const team = text("/metadata/labels/team"), kind = text("/spec/template/kind"), notThere = text("none"), notDeclared = text("not declared");
const quoted = new Text(new ArrayBuffer(258), 0);

export function on_request(): i32 {
  const asked = case_.header(xCase).text, space = here.attr(NAMESPACE).text;
  if (asked.is(label)) warn(found.lookup(namespaces, none, space, team).text);
  if (asked.is(nested)) warn(found.lookup(deployments, space, web, kind).text);
  if (asked.is(missing) && found.lookup(namespaces, none, elsewhere, none).kind == ABSENT) warn(notThere);
  if (asked.is(inBank) && found.lookup(deployments, bank, web, none).kind != ABSENT) warn(notDeclared);
  if (asked.is(undeclared) && found.lookup(secrets, space, token, none).kind != ABSENT) warn(notDeclared);
  return 0;
}

export function on_object(): i32 {
  if (found.lookup(namespaces, none, here.attr(NAMESPACE).text, team).kind != STRING) return 0;
  const quote: u8 = 0x22; // a label needs no escapes
  store<u8>(quoted.at, quote);
  memory.copy(quoted.at + 1, found.text.at, found.text.length);
  store<u8>(quoted.at + 1 + found.text.length, quote);
  quoted.length = found.text.length + 2;
  return set(team, quoted) == 0 ? 2 : 9;
}
