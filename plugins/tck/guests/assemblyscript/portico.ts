// What guests in AssemblyScript import, with texts in memory that is never freed:
// what is made in a call is lost in it, so whatever lasts is made once.

// @ts-ignore: decorator
@external("portico.v1", "config_get") declare function config_get(pointer: usize, length: u32, buf: usize, limit: u32): u64;
// @ts-ignore: decorator
@external("portico.v1", "fail") declare function host_fail(text: usize, length: u32): void;
// @ts-ignore: decorator
@external("portico.v1", "attr_get") declare function attr_get(id: u32, buf: usize, limit: u32): u64;
// @ts-ignore: decorator
@external("portico.v1", "header_get") declare function header_get(name: usize, length: u32, buf: usize, limit: u32): u64;
// @ts-ignore: decorator
@external("portico.v1", "param_get") declare function param_get(name: usize, length: u32, buf: usize, limit: u32): u64;
// @ts-ignore: decorator
@external("portico.v1", "respond") declare function host_respond(code: i32, reason: usize, reason_length: u32, text: usize, length: u32, retry_after: i32): void;
// @ts-ignore: decorator
@external("portico.v1", "warn") declare function host_warn(text: usize, length: u32): void;
// @ts-ignore: decorator
@external("portico.v1", "object_get") declare function object_get(pointer: usize, length: u32, buf: usize, limit: u32): u64;
// @ts-ignore: decorator
@external("portico.v1", "object_set") declare function object_set(pointer: usize, length: u32, json: usize, json_length: u32): i32;
// @ts-ignore: decorator
@external("portico.v1", "object_remove") declare function object_remove(pointer: usize, length: u32): i32;
// @ts-ignore: decorator
@external("portico.v1", "lookup") declare function host_lookup(
  resource: usize, resource_length: u32, space: usize, space_length: u32, name: usize, name_length: u32,
  pointer: usize, pointer_length: u32, buf: usize, limit: u32,
): u64;

/** Kinds of what a getter finds. */
export const ABSENT: u32 = 0;
export const STRING: u32 = 4;
export const OBJECT: u32 = 5;
export const ARRAY: u32 = 6;

/** Text is UTF-8 at a place in memory. */
export class Text {
  constructor(public at: usize, public length: u32) {}

  /** is reports whether it is the same as another. */
  is(other: Text): bool {
    return this.length == other.length && memory.compare(this.at, other.at, this.length) == 0;
  }
}

/** text is a string as the host wants it. Make it once, outside of functions. */
export function text(s: string): Text {
  const buffer = String.UTF8.encode(s);
  return new Text(changetype<usize>(buffer), buffer.byteLength);
}

/** Found is what a getter found last, if it fits into its buffer. */
export class Found {
  kind: u32 = ABSENT;
  text: Text;
  limit: u32;

  constructor(limit: u32) {
    this.text = new Text(changetype<usize>(new ArrayBuffer(limit)), 0);
    this.limit = limit;
  }

  private take(result: u64): Found {
    this.kind = <u32>(result >> 32);
    this.text.length = min(<u32>result, this.limit);
    return this;
  }

  config(pointer: Text): Found { return this.take(config_get(pointer.at, pointer.length, this.text.at, this.limit)); }
  attr(id: u32): Found { return this.take(attr_get(id, this.text.at, this.limit)); }
  header(name: Text): Found { return this.take(header_get(name.at, name.length, this.text.at, this.limit)); }
  param(name: Text): Found { return this.take(param_get(name.at, name.length, this.text.at, this.limit)); }
  object(pointer: Text): Found { return this.take(object_get(pointer.at, pointer.length, this.text.at, this.limit)); }

  lookup(resource: Text, space: Text, name: Text, pointer: Text): Found {
    return this.take(host_lookup(
      resource.at, resource.length, space.at, space.length, name.at, name.length, pointer.at, pointer.length, this.text.at, this.limit,
    ));
  }
}

export function fail(why: Text): void { host_fail(why.at, why.length); }
export function warn(what: Text): void { host_warn(what.at, what.length); }
export function set(pointer: Text, json: Text): i32 { return object_set(pointer.at, pointer.length, json.at, json.length); }
export function remove(pointer: Text): i32 { return object_remove(pointer.at, pointer.length); }

/** refuse is what on_request and on_object return to refuse. */
export function refuse(code: i32, reason: Text, message: Text, retryAfter: i32): i32 {
  host_respond(code, reason.at, reason.length, message.at, message.length, retryAfter);
  return 1;
}
