//! The guest that the cases of plugins/tck speak of, in Rust: no library, no
//! allocator. It is built by
//!
//!     rustc --target=wasm32-unknown-unknown --crate-type=cdylib -C opt-level=2 -C panic=abort -o guest.wasm guest.rs
#![no_std]

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}

#[link(wasm_import_module = "portico.v1")]
extern "C" {
    fn config_get(pointer: *const u8, length: usize, buf: *mut u8, limit: usize) -> u64;
    fn fail(text: *const u8, length: usize);
    fn attr_get(id: u32, buf: *mut u8, limit: usize) -> u64;
    fn header_get(name: *const u8, length: usize, buf: *mut u8, limit: usize) -> u64;
    fn param_get(name: *const u8, length: usize, buf: *mut u8, limit: usize) -> u64;
    fn respond(code: i32, reason: *const u8, reason_length: usize, text: *const u8, length: usize, retry_after: i32);
    fn warn(text: *const u8, length: usize);
    fn object_get(pointer: *const u8, length: usize, buf: *mut u8, limit: usize) -> u64;
    fn object_set(pointer: *const u8, length: usize, json: *const u8, json_length: usize) -> i32;
    fn object_remove(pointer: *const u8, length: usize) -> i32;
}

const USER: u32 = 1;
const GROUPS: u32 = 3;
const ABSENT: u32 = 0;
const STRING: u32 = 4;
const OBJECT: u32 = 5;
const ARRAY: u32 = 6;
const FORBIDDEN: i32 = 3;

/// Found is what a getter found, if it fits.
struct Found {
    kind: u32,
    length: usize,
    bytes: [u8; 256],
}

impl Found {
    fn by(getter: impl FnOnce(*mut u8, usize) -> u64) -> Found {
        let mut found = Found { kind: ABSENT, length: 0, bytes: [0; 256] };
        let result = getter(found.bytes.as_mut_ptr(), found.bytes.len());
        found.kind = (result >> 32) as u32;
        found.length = core::cmp::min(result as u32 as usize, found.bytes.len());
        found
    }

    fn text(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

fn config(pointer: &str) -> Found {
    Found::by(|buf, limit| unsafe { config_get(pointer.as_ptr(), pointer.len(), buf, limit) })
}

fn attr(id: u32) -> Found {
    Found::by(|buf, limit| unsafe { attr_get(id, buf, limit) })
}

fn header(name: &str) -> Found {
    Found::by(|buf, limit| unsafe { header_get(name.as_ptr(), name.len(), buf, limit) })
}

fn param(name: &str) -> Found {
    Found::by(|buf, limit| unsafe { param_get(name.as_ptr(), name.len(), buf, limit) })
}

fn object(pointer: &str) -> Found {
    Found::by(|buf, limit| unsafe { object_get(pointer.as_ptr(), pointer.len(), buf, limit) })
}

fn set(pointer: &str, json: &str) -> i32 {
    unsafe { object_set(pointer.as_ptr(), pointer.len(), json.as_ptr(), json.len()) }
}

fn say(text: &[u8]) {
    unsafe { warn(text.as_ptr(), text.len()) }
}

fn refuse(code: i32, reason: &str, text: &str, retry_after: i32) -> i32 {
    unsafe { respond(code, reason.as_ptr(), reason.len(), text.as_ptr(), text.len(), retry_after) }
    1
}

#[no_mangle]
pub extern "C" fn portico_abi_v1() {}

#[no_mangle]
pub extern "C" fn configure() -> i32 {
    if config("").kind == OBJECT {
        return 0;
    }
    let why = "the configuration must be an object";
    unsafe { fail(why.as_ptr(), why.len()) }
    1
}

#[no_mangle]
pub extern "C" fn on_request() -> i32 {
    match header("X-Case").text() {
        b"deny" => return refuse(403, "Forbidden", "not here", 0),
        b"slow" => return refuse(429, "TooManyRequests", "slower", 7),
        b"warn" => say(attr(USER).text()),
        b"param" => say(param("fieldManager").text()),
        b"config" => say(config("/greeting").text()),
        b"group" => {
            let groups = attr(GROUPS);
            if groups.kind == ARRAY && groups.text() == b"[\"devs\"]" {
                say(b"true false");
            }
        }
        b"credential" if header("authorization").kind != ABSENT => say(b"leaked"),
        _ => {}
    }
    0
}

#[no_mangle]
pub extern "C" fn on_object() -> i32 {
    let hide = object("/metadata/labels/hide");
    if hide.kind == STRING && hide.text() == b"yes" {
        return refuse(403, "Forbidden", "hidden", 0);
    }
    if hide.kind == STRING && hide.text() == b"rename" {
        return if set("/metadata/name", "\"other\"") == FORBIDDEN { 0 } else { 9 };
    }
    let secret = "/metadata/annotations/secret";
    if object(secret).kind != ABSENT {
        return if unsafe { object_remove(secret.as_ptr(), secret.len()) } == 0 { 2 } else { 9 };
    }
    if object("/metadata/labels/team").kind != ABSENT {
        return 0;
    }
    if set("/metadata/labels/team", "\"web\"") == 0 { 2 } else { 9 }
}
