//! The guest that the cases of plugins/tck speak of, in Rust: no library, no
//! allocator. It is built by
//!
//!     rustc --target=wasm32-unknown-unknown --crate-type=cdylib -C opt-level=2 -C panic=abort -o guest.wasm guest.rs
#![no_std]

#[path = "../../../abi/languages/portico.rs"]
mod portico;
use portico::*;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}

#[no_mangle]
pub extern "C" fn configure() -> i32 {
    if config("").kind == OBJECT {
        return 0;
    }
    fail("the configuration must be an object");
    1
}

#[no_mangle]
pub extern "C" fn on_request() -> i32 {
    match header("X-Case").text() {
        b"deny" => return refuse(403, "Forbidden", "not here", 0),
        b"slow" => return refuse(429, "TooManyRequests", "slower", 7),
        b"warn" => warn(attr(USER).text()),
        b"param" => warn(param("fieldManager").text()),
        b"config" => warn(config("/greeting").text()),
        b"group" => {
            let groups = attr(GROUPS);
            if groups.kind == ARRAY && groups.text() == b"[\"devs\"]" {
                warn(b"true false");
            }
        }
        b"credential" if header("authorization").kind != ABSENT => warn(b"leaked"),
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
        return if set("/metadata/name", b"\"other\"") == PATCH_FORBIDDEN { 0 } else { 9 };
    }
    let secret = "/metadata/annotations/secret";
    if object(secret).kind != ABSENT {
        return if remove(secret) == 0 { 2 } else { 9 };
    }
    if object("/metadata/labels/team").kind != ABSENT {
        return 0;
    }
    if set("/metadata/labels/team", b"\"web\"") == 0 { 2 } else { 9 }
}
