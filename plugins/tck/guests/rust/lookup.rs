//! The guest that the cases of plugins/tck about lookup speak of, in Rust.
#![no_std]

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}

#[link(wasm_import_module = "portico.v1")]
extern "C" {
    fn attr_get(id: u32, buf: *mut u8, limit: usize) -> u64;
    fn header_get(name: *const u8, length: usize, buf: *mut u8, limit: usize) -> u64;
    fn warn(text: *const u8, length: usize);
    fn object_set(pointer: *const u8, length: usize, json: *const u8, json_length: usize) -> i32;
    fn lookup(
        resource: *const u8, resource_length: usize, space: *const u8, space_length: usize, name: *const u8, name_length: usize,
        pointer: *const u8, pointer_length: usize, buf: *mut u8, limit: usize,
    ) -> u64;
}

const NAMESPACE: u32 = 10;
const STRING: u64 = 4;

/// The parts of a getter's result: the kind of what it found, and its length.
fn parts(result: u64, limit: usize) -> (u64, usize) {
    (result >> 32, core::cmp::min(result as u32 as usize, limit))
}

fn find(resource: &str, space: &[u8], name: &[u8], pointer: &str, buf: &mut [u8]) -> (u64, usize) {
    let result = unsafe {
        lookup(
            resource.as_ptr(), resource.len(), space.as_ptr(), space.len(), name.as_ptr(), name.len(),
            pointer.as_ptr(), pointer.len(), buf.as_mut_ptr(), buf.len(),
        )
    };
    parts(result, buf.len())
}

/// The namespace that the request is about.
fn here(buf: &mut [u8; 64]) -> &[u8] {
    let (_, length) = parts(unsafe { attr_get(NAMESPACE, buf.as_mut_ptr(), buf.len()) }, buf.len());
    &buf[..length]
}

fn say(text: &[u8]) {
    unsafe { warn(text.as_ptr(), text.len()) }
}

#[no_mangle]
pub extern "C" fn portico_abi_v1() {}

#[no_mangle]
pub extern "C" fn on_request() -> i32 {
    let (mut case, mut space, mut buf) = ([0; 64], [0; 64], [0; 256]);
    let asked = "X-Case";
    let (_, length) = parts(unsafe { header_get(asked.as_ptr(), asked.len(), case.as_mut_ptr(), case.len()) }, case.len());
    let space = here(&mut space);
    match &case[..length] {
        b"label" => {
            let (_, length) = find("namespaces", b"", space, "/metadata/labels/team", &mut buf);
            say(&buf[..length]);
        }
        b"nested" => {
            let (_, length) = find("deployments.apps", space, b"web", "/spec/template/kind", &mut buf);
            say(&buf[..length]);
        }
        b"missing" if find("namespaces", b"", b"elsewhere", "", &mut buf).0 == 0 => say(b"none"),
        b"elsewhere" if find("deployments.apps", b"bank", b"web", "", &mut buf).0 != 0 => say(b"not declared"),
        b"undeclared" if find("secrets", space, b"token", "", &mut buf).0 != 0 => say(b"not declared"),
        _ => {}
    }
    0
}

#[no_mangle]
pub extern "C" fn on_object() -> i32 {
    let (mut space, mut buf) = ([0; 64], [0; 256]);
    let (kind, length) = find("namespaces", b"", here(&mut space), "/metadata/labels/team", &mut buf[1..255]);
    if kind != STRING {
        return 0;
    }
    buf[0] = b'"'; // a label needs no escapes
    buf[1 + length] = b'"';
    let label = "/metadata/labels/team";
    if unsafe { object_set(label.as_ptr(), label.len(), buf.as_ptr(), length + 2) } == 0 { 2 } else { 9 }
}
