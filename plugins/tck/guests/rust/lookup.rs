//! The guest that the cases of plugins/tck about lookup speak of, in Rust.
#![no_std]

#[path = "../../../abi/languages/portico.rs"]
mod portico;
use portico::*;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}

#[no_mangle]
pub extern "C" fn on_request() -> i32 {
    let space = attr(NAMESPACE);
    match header("X-Case").text() {
        b"label" => warn(lookup("namespaces", b"", space.text(), "/metadata/labels/team").text()),
        b"nested" => warn(lookup("deployments.apps", space.text(), b"web", "/spec/template/kind").text()),
        b"missing" if lookup("namespaces", b"", b"elsewhere", "").kind == ABSENT => warn(b"none"),
        b"elsewhere" if lookup("deployments.apps", b"bank", b"web", "").kind != ABSENT => warn(b"not declared"),
        b"undeclared" if lookup("secrets", space.text(), b"token", "").kind != ABSENT => warn(b"not declared"),
        _ => {}
    }
    0
}

#[no_mangle]
pub extern "C" fn on_object() -> i32 {
    let found = lookup("namespaces", b"", attr(NAMESPACE).text(), "/metadata/labels/team");
    if found.kind != STRING {
        return KEEP;
    }
    let (team, mut label) = (found.text(), [b'"'; ROOM + 2]); // a label needs no escapes
    label[1..1 + team.len()].copy_from_slice(team);
    if set("/metadata/labels/team", &label[..team.len() + 2]) == PATCH_OK { PATCHED } else { 9 }
}
