//! What guests in Rust import from the host of portico.v1. A guest has it as a module,
//! and exports the functions that it wants to be called, each without parameters:
//! configure, on_request and on_object, which return an i32, and on_end.
//! ../README.md says what all of it means.
//!
//!     mod portico;
//!
//!     #[no_mangle]
//!     pub extern "C" fn on_request() -> i32 { portico::CONTINUE }
#![allow(dead_code)]

#[link(wasm_import_module = "portico.v1")]
extern "C" {
    fn config_get(pointer: *const u8, pointer_length: usize, buf: *mut u8, limit: usize) -> u64;
    fn log_enabled(level: u32) -> i32;
    #[link_name = "log"]
    fn host_log(level: u32, text: *const u8, length: usize);
    #[link_name = "fail"]
    fn host_fail(text: *const u8, length: usize);
    fn attr_get(attribute: u32, buf: *mut u8, limit: usize) -> u64;
    fn header_get(name: *const u8, name_length: usize, buf: *mut u8, limit: usize) -> u64;
    fn param_get(name: *const u8, name_length: usize, buf: *mut u8, limit: usize) -> u64;
    fn respond(code: i32, reason: *const u8, reason_length: usize, message: *const u8, message_length: usize, retry_after: i32);
    #[link_name = "warn"]
    fn host_warn(text: *const u8, length: usize);
    fn event_type() -> i32;
    fn object_get(pointer: *const u8, pointer_length: usize, buf: *mut u8, limit: usize) -> u64;
    fn object_prev_get(pointer: *const u8, pointer_length: usize, buf: *mut u8, limit: usize) -> u64;
    fn object_set(pointer: *const u8, pointer_length: usize, json: *const u8, json_length: usize) -> i32;
    fn object_remove(pointer: *const u8, pointer_length: usize) -> i32;
    fn end_get(figure: u32) -> i64;
    fn kv_get(key: *const u8, key_length: usize) -> i64;
    fn kv_add(key: *const u8, key_length: usize, delta: i64, ttl_millis: i64) -> i64;
    fn now_ms() -> i64;
    #[link_name = "lookup"]
    fn host_lookup(resource: *const u8, resource_length: usize, space: *const u8, space_length: usize, name: *const u8, name_length: usize, pointer: *const u8, pointer_length: usize, buf: *mut u8, limit: usize) -> u64;
}

/// The marker.
#[no_mangle]
pub extern "C" fn portico_abi_v1() {}

// What on_request returns. DENY is what refuse returns.
pub const CONTINUE: i32 = 0;
pub const DENY: i32 = 1;

// What on_object returns, or what refuse does.
pub const KEEP: i32 = 0;
pub const DROP: i32 = 1;
pub const PATCHED: i32 = 2;

// Kinds of what a getter finds.
pub const ABSENT: u32 = 0;
pub const NULL: u32 = 1;
pub const BOOL: u32 = 2;
pub const NUMBER: u32 = 3;
pub const STRING: u32 = 4;
pub const OBJECT: u32 = 5;
pub const ARRAY: u32 = 6;

// Attributes of the request.
pub const USER: u32 = 1;
pub const UID: u32 = 2;
pub const GROUPS: u32 = 3;
pub const EXTRA: u32 = 4;
pub const VERB: u32 = 5;
pub const API_GROUP: u32 = 6;
pub const API_VERSION: u32 = 7;
pub const RESOURCE: u32 = 8;
pub const SUBRESOURCE: u32 = 9;
pub const NAMESPACE: u32 = 10;
pub const NAME: u32 = 11;
pub const PATH: u32 = 12;
pub const USER_AGENT: u32 = 13;
pub const SOURCE_IP: u32 = 14;
pub const LABEL_SELECTOR: u32 = 15;
pub const FIELD_SELECTOR: u32 = 16;
pub const AUDIT_ID: u32 = 17;

// What happened to an object.
pub const NO_EVENT: i32 = 0;
pub const ADDED: i32 = 1;
pub const MODIFIED: i32 = 2;
pub const DELETED: i32 = 3;

// Figures about an answered request.
pub const END_CODE: u32 = 1;
pub const END_BYTES: u32 = 2;
pub const END_MICROS: u32 = 3;

// Levels of the log.
pub const LEVEL_ERROR: u32 = 0;
pub const LEVEL_INFO: u32 = 1;
pub const LEVEL_DEBUG: u32 = 2;

// What set and remove return.
pub const PATCH_OK: i32 = 0;
pub const PATCH_NOT_FOUND: i32 = 1;
pub const PATCH_INVALID: i32 = 2;
pub const PATCH_FORBIDDEN: i32 = 3;
pub const PATCH_OVERFLOWING: i32 = 4;

/// ROOM is how long what is found may be, in bytes.
pub const ROOM: usize = 1024;

/// Found is what a getter found.
pub struct Found {
    pub kind: u32,
    length: usize,
    bytes: [u8; ROOM],
}

impl Found {
    /// What does not fit traps: the filter has failed, and decides nothing.
    fn by(getter: impl FnOnce(*mut u8, usize) -> u64) -> Found {
        let mut found = Found { kind: ABSENT, length: 0, bytes: [0; ROOM] };
        let result = getter(found.bytes.as_mut_ptr(), ROOM);
        found.kind = (result >> 32) as u32;
        found.length = result as u32 as usize;
        if found.length > ROOM {
            core::arch::wasm32::unreachable()
        }
        found
    }

    pub fn text(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

pub fn config(pointer: &str) -> Found {
    Found::by(|buf, limit| unsafe { config_get(pointer.as_ptr(), pointer.len(), buf, limit) })
}

pub fn attr(attribute: u32) -> Found {
    Found::by(|buf, limit| unsafe { attr_get(attribute, buf, limit) })
}

pub fn header(name: &str) -> Found {
    Found::by(|buf, limit| unsafe { header_get(name.as_ptr(), name.len(), buf, limit) })
}

pub fn param(name: &str) -> Found {
    Found::by(|buf, limit| unsafe { param_get(name.as_ptr(), name.len(), buf, limit) })
}

pub fn object(pointer: &str) -> Found {
    Found::by(|buf, limit| unsafe { object_get(pointer.as_ptr(), pointer.len(), buf, limit) })
}

pub fn previous(pointer: &str) -> Found {
    Found::by(|buf, limit| unsafe { object_prev_get(pointer.as_ptr(), pointer.len(), buf, limit) })
}

/// lookup needs the capability lookup.
pub fn lookup(resource: &str, space: &[u8], name: &[u8], pointer: &str) -> Found {
    Found::by(|buf, limit| unsafe {
        host_lookup(
            resource.as_ptr(), resource.len(), space.as_ptr(), space.len(), name.as_ptr(), name.len(),
            pointer.as_ptr(), pointer.len(), buf, limit,
        )
    })
}

/// set puts a JSON value at a pointer of the object.
pub fn set(pointer: &str, json: &[u8]) -> i32 {
    unsafe { object_set(pointer.as_ptr(), pointer.len(), json.as_ptr(), json.len()) }
}

pub fn remove(pointer: &str) -> i32 {
    unsafe { object_remove(pointer.as_ptr(), pointer.len()) }
}

pub fn event() -> i32 {
    unsafe { event_type() }
}

pub fn end(figure: u32) -> i64 {
    unsafe { end_get(figure) }
}

pub fn warn(text: &[u8]) {
    unsafe { host_warn(text.as_ptr(), text.len()) }
}

pub fn log(level: u32, text: &[u8]) {
    unsafe { host_log(level, text.as_ptr(), text.len()) }
}

pub fn logs(level: u32) -> bool {
    unsafe { log_enabled(level) != 0 }
}

/// fail says why configure is about to refuse.
pub fn fail(why: &str) {
    unsafe { host_fail(why.as_ptr(), why.len()) }
}

/// refuse is what on_request and on_object return to refuse.
pub fn refuse(code: i32, reason: &str, message: &str, retry_after: i32) -> i32 {
    unsafe { respond(code, reason.as_ptr(), reason.len(), message.as_ptr(), message.len(), retry_after) }
    DENY
}

/// counted and count need the capability kv.
pub fn counted(key: &[u8]) -> i64 {
    unsafe { kv_get(key.as_ptr(), key.len()) }
}

pub fn count(key: &[u8], delta: i64, ttl_millis: i64) -> i64 {
    unsafe { kv_add(key.as_ptr(), key.len(), delta, ttl_millis) }
}

/// now is the time in milliseconds since 1970. It needs the capability clock.
pub fn now() -> i64 {
    unsafe { now_ms() }
}
