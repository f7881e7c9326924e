// What guests in AssemblyScript import from the host of portico.v1. A guest imports
// what it needs of this file, re-exports the marker, and exports the functions that it
// wants to be called, each without parameters: configure, on_request and on_object,
// which return an i32, and on_end. ../README.md says what all of it means.
//
//	export { portico_abi_v1 } from "./portico";

// @ts-ignore: decorator
@external("portico.v1", "config_get") declare function config_get(pointer: usize, pointer_length: u32, buf: usize, limit: u32): u64;
// @ts-ignore: decorator
@external("portico.v1", "log_enabled") declare function host_log_enabled(level: u32): i32;
// @ts-ignore: decorator
@external("portico.v1", "log") declare function host_log(level: u32, text: usize, length: u32): void;
// @ts-ignore: decorator
@external("portico.v1", "fail") declare function host_fail(text: usize, length: u32): void;
// @ts-ignore: decorator
@external("portico.v1", "attr_get") declare function attr_get(attribute: u32, buf: usize, limit: u32): u64;
// @ts-ignore: decorator
@external("portico.v1", "header_get") declare function header_get(name: usize, name_length: u32, buf: usize, limit: u32): u64;
// @ts-ignore: decorator
@external("portico.v1", "param_get") declare function param_get(name: usize, name_length: u32, buf: usize, limit: u32): u64;
// @ts-ignore: decorator
@external("portico.v1", "respond") declare function host_respond(code: i32, reason: usize, reason_length: u32, message: usize, message_length: u32, retry_after: i32): void;
// @ts-ignore: decorator
@external("portico.v1", "warn") declare function host_warn(text: usize, length: u32): void;
// @ts-ignore: decorator
@external("portico.v1", "event_type") declare function host_event_type(): i32;
// @ts-ignore: decorator
@external("portico.v1", "object_get") declare function object_get(pointer: usize, pointer_length: u32, buf: usize, limit: u32): u64;
// @ts-ignore: decorator
@external("portico.v1", "object_prev_get") declare function object_prev_get(pointer: usize, pointer_length: u32, buf: usize, limit: u32): u64;
// @ts-ignore: decorator
@external("portico.v1", "object_set") declare function object_set(pointer: usize, pointer_length: u32, json: usize, json_length: u32): i32;
// @ts-ignore: decorator
@external("portico.v1", "object_remove") declare function object_remove(pointer: usize, pointer_length: u32): i32;
// @ts-ignore: decorator
@external("portico.v1", "end_get") declare function end_get(figure: u32): i64;
// @ts-ignore: decorator
@external("portico.v1", "kv_get") declare function kv_get(key: usize, key_length: u32): i64;
// @ts-ignore: decorator
@external("portico.v1", "kv_add") declare function kv_add(key: usize, key_length: u32, delta: i64, ttl_millis: i64): i64;
// @ts-ignore: decorator
@external("portico.v1", "now_ms") declare function host_now_ms(): i64;
// @ts-ignore: decorator
@external("portico.v1", "lookup") declare function host_lookup(resource: usize, resource_length: u32, space: usize, space_length: u32, name: usize, name_length: u32, pointer: usize, pointer_length: u32, buf: usize, limit: u32): u64;

/** portico_abi_v1 is the marker. */
export function portico_abi_v1(): void {}

/** What on_request returns. DENY is what refuse returns. */
export const CONTINUE: i32 = 0;
export const DENY: i32 = 1;

/** What on_object returns, or what refuse does. */
export const KEEP: i32 = 0;
export const DROP: i32 = 1;
export const PATCHED: i32 = 2;

/** Kinds of what a getter finds. */
export const ABSENT: u32 = 0;
export const NULL: u32 = 1;
export const BOOL: u32 = 2;
export const NUMBER: u32 = 3;
export const STRING: u32 = 4;
export const OBJECT: u32 = 5;
export const ARRAY: u32 = 6;

/** Attributes of the request. */
export const USER: u32 = 1;
export const UID: u32 = 2;
export const GROUPS: u32 = 3;
export const EXTRA: u32 = 4;
export const VERB: u32 = 5;
export const API_GROUP: u32 = 6;
export const API_VERSION: u32 = 7;
export const RESOURCE: u32 = 8;
export const SUBRESOURCE: u32 = 9;
export const NAMESPACE: u32 = 10;
export const NAME: u32 = 11;
export const PATH: u32 = 12;
export const USER_AGENT: u32 = 13;
export const SOURCE_IP: u32 = 14;
export const LABEL_SELECTOR: u32 = 15;
export const FIELD_SELECTOR: u32 = 16;
export const AUDIT_ID: u32 = 17;

/** What happened to an object. */
export const NO_EVENT: i32 = 0;
export const ADDED: i32 = 1;
export const MODIFIED: i32 = 2;
export const DELETED: i32 = 3;

/** Figures about an answered request. */
export const END_CODE: u32 = 1;
export const END_BYTES: u32 = 2;
export const END_MICROS: u32 = 3;

/** Levels of the log. */
export const LEVEL_ERROR: u32 = 0;
export const LEVEL_INFO: u32 = 1;
export const LEVEL_DEBUG: u32 = 2;

/** What set and remove return. */
export const PATCH_OK: i32 = 0;
export const PATCH_NOT_FOUND: i32 = 1;
export const PATCH_INVALID: i32 = 2;
export const PATCH_FORBIDDEN: i32 = 3;
export const PATCH_OVERFLOWING: i32 = 4;

/** Text is UTF-8, as the host has it. */
export class Text {
  constructor(public buffer: ArrayBuffer, public length: u32) {}

  get at(): usize { return changetype<usize>(this.buffer); }

  /** is reports whether it is the same as another. */
  is(other: Text): bool {
    return this.length == other.length && memory.compare(this.at, other.at, this.length) == 0;
  }

  /** toString is a string of its own. */
  toString(): string { return String.UTF8.decodeUnsafe(this.at, this.length); }
}

/** text is a string as the host wants it. Make what is always the same once, outside of functions. */
export function text(s: string): Text {
  const buffer = String.UTF8.encode(s);
  return new Text(buffer, buffer.byteLength);
}

/** Found is what one of its getters found last. */
export class Found {
  kind: u32 = ABSENT;
  text: Text;

  /** room is for that many bytes; more is made where there is more to be found. */
  constructor(room: i32 = 256) {
    this.text = new Text(new ArrayBuffer(room), 0);
  }

  private get at(): usize { return this.text.at; }
  private get room(): u32 { return <u32>this.text.buffer.byteLength; }

  /** lacks takes what was found, or makes room for it: then the host has to be asked again. */
  private lacks(result: u64): bool {
    this.kind = <u32>(result >> 32);
    this.text.length = <u32>result;
    if (this.text.length <= this.room) return false;
    this.text.buffer = new ArrayBuffer(this.text.length);
    return true;
  }

  config(pointer: Text): Found {
    while (this.lacks(config_get(pointer.at, pointer.length, this.at, this.room))) {}
    return this;
  }

  attr(attribute: u32): Found {
    while (this.lacks(attr_get(attribute, this.at, this.room))) {}
    return this;
  }

  header(name: Text): Found {
    while (this.lacks(header_get(name.at, name.length, this.at, this.room))) {}
    return this;
  }

  param(name: Text): Found {
    while (this.lacks(param_get(name.at, name.length, this.at, this.room))) {}
    return this;
  }

  object(pointer: Text): Found {
    while (this.lacks(object_get(pointer.at, pointer.length, this.at, this.room))) {}
    return this;
  }

  previous(pointer: Text): Found {
    while (this.lacks(object_prev_get(pointer.at, pointer.length, this.at, this.room))) {}
    return this;
  }

  /** lookup needs the capability lookup. */
  lookup(resource: Text, space: Text, name: Text, pointer: Text): Found {
    while (this.lacks(host_lookup(
      resource.at, resource.length, space.at, space.length, name.at, name.length, pointer.at, pointer.length, this.at, this.room,
    ))) {}
    return this;
  }
}

export function fail(why: Text): void { host_fail(why.at, why.length); }
export function warn(what: Text): void { host_warn(what.at, what.length); }
export function logs(level: u32): bool { return host_log_enabled(level) != 0; }
export function log(level: u32, what: Text): void { host_log(level, what.at, what.length); }
export function event(): i32 { return host_event_type(); }
export function set(pointer: Text, json: Text): i32 { return object_set(pointer.at, pointer.length, json.at, json.length); }
export function remove(pointer: Text): i32 { return object_remove(pointer.at, pointer.length); }
export function end(figure: u32): i64 { return end_get(figure); }

/** refuse is what on_request and on_object return to refuse. */
export function refuse(code: i32, reason: Text, message: Text, retryAfter: i32): i32 {
  host_respond(code, reason.at, reason.length, message.at, message.length, retryAfter);
  return DENY;
}

/** counted and count need the capability kv, and now the capability clock. */
export function counted(key: Text): i64 { return kv_get(key.at, key.length); }
export function count(key: Text, delta: i64, ttlMillis: i64): i64 { return kv_add(key.at, key.length, delta, ttlMillis); }
export function now(): i64 { return host_now_ms(); }
