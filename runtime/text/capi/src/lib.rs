//! Tokenizers and chat templates behind the C ABI that capi.h describes.
//!
//! This file is the border: it turns pointers into slices, panics into codes, and Rust's strings into owned C ones.
//! What is done lives in the other files, which know nothing of C.

mod json;
mod python;
mod stream;
mod template;
mod tokenizer;

use std::os::raw::c_char;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Once};

use stream::Stream;
use template::{Limits, Template};
use tokenizer::Tokenizer;

/// Why something was not done. The message is one line.
#[derive(Debug)]
pub enum Fault {
    Invalid(String),
    Limit(String),
    Internal(String),
}

pub type Result<T> = std::result::Result<T, Fault>;

impl Fault {
    fn code(&self) -> i32 {
        match self {
            Fault::Invalid(_) => 1,
            Fault::Limit(_) => 2,
            Fault::Internal(_) => 3,
        }
    }

    fn message(self) -> String {
        let (Fault::Invalid(text) | Fault::Limit(text) | Fault::Internal(text)) = self;
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

#[repr(C)]
pub struct CString {
    data: *mut c_char,
    size: usize,
    capacity: usize,
}

#[repr(C)]
pub struct CIds {
    data: *mut u32,
    size: usize,
    capacity: usize,
}

#[repr(C)]
pub struct CVariable {
    name: *const c_char,
    name_size: usize,
    json: *const c_char,
    json_size: usize,
}

/// A vector's memory as pointer, size and capacity; `from_raw_parts` takes it back.
fn release<T>(vector: Vec<T>) -> (*mut T, usize, usize) {
    let mut vector = std::mem::ManuallyDrop::new(vector);
    (vector.as_mut_ptr(), vector.len(), vector.capacity())
}

unsafe fn put_string(out: *mut CString, text: String) {
    let (data, size, capacity) = release(text.into_bytes());
    out.write(CString { data: data.cast(), size, capacity });
}

unsafe fn bytes<'a>(data: *const c_char, size: usize) -> &'a [u8] {
    if size == 0 {
        return &[];
    }
    std::slice::from_raw_parts(data.cast(), size)
}

unsafe fn ids<'a>(data: *const u32, size: usize) -> &'a [u32] {
    if size == 0 {
        return &[];
    }
    std::slice::from_raw_parts(data, size)
}

/// Nothing unwinds into C++. A panic is told once, by the code it becomes, and not on the standard error stream too.
fn guard<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(Fault::Internal(format!("the text library panicked: {said}")))
    })
}

/// The result, or the message, goes to one string.
unsafe fn finish(result: Result<String>, out: *mut CString) -> i32 {
    let (code, text) = match result {
        Ok(text) => (0, text),
        Err(fault) => (fault.code(), fault.message()),
    };
    put_string(out, text);
    code
}

unsafe fn boxed<T>(result: Result<T>, error: *mut CString) -> *mut T {
    match result {
        Ok(value) => {
            put_string(error, String::new());
            Box::into_raw(Box::new(value))
        }
        Err(fault) => {
            put_string(error, fault.message());
            std::ptr::null_mut()
        }
    }
}

unsafe fn unbox<T>(value: *mut T) {
    if !value.is_null() {
        let value = Box::from_raw(value);
        let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
    }
}

#[no_mangle]
pub unsafe extern "C" fn echelon_text_string_free(string: CString) {
    if !string.data.is_null() {
        drop(Vec::from_raw_parts(string.data.cast::<u8>(), string.size, string.capacity));
    }
}

#[no_mangle]
pub unsafe extern "C" fn echelon_text_ids_free(ids: CIds) {
    if !ids.data.is_null() {
        drop(Vec::from_raw_parts(ids.data, ids.size, ids.capacity));
    }
}

#[no_mangle]
pub unsafe extern "C" fn echelon_tokenizer_new(
    json: *const c_char,
    json_size: usize,
    added: *const c_char,
    added_size: usize,
    error: *mut CString,
) -> *mut Arc<Tokenizer> {
    boxed(guard(|| Tokenizer::new(bytes(json, json_size), bytes(added, added_size)).map(Arc::new)), error)
}

#[no_mangle]
pub unsafe extern "C" fn echelon_tokenizer_free(tokenizer: *mut Arc<Tokenizer>) {
    unbox(tokenizer);
}

#[no_mangle]
pub unsafe extern "C" fn echelon_tokenizer_encode(
    tokenizer: *const Arc<Tokenizer>,
    text: *const c_char,
    size: usize,
    add_special: bool,
    parse_special: bool,
    out: *mut CIds,
    error: *mut CString,
) -> i32 {
    let text = String::from_utf8_lossy(bytes(text, size));
    let (found, code, message) = match guard(|| (*tokenizer).encode(&text, add_special, parse_special)) {
        Ok(found) => (found, 0, String::new()),
        Err(fault) => (Vec::new(), fault.code(), fault.message()),
    };
    let (data, size, capacity) = release(found);
    out.write(CIds { data, size, capacity });
    put_string(error, message);
    code
}

#[no_mangle]
pub unsafe extern "C" fn echelon_tokenizer_decode(
    tokenizer: *const Arc<Tokenizer>,
    data: *const u32,
    size: usize,
    skip_special: bool,
    out: *mut CString,
) -> i32 {
    finish(guard(|| (*tokenizer).decode(ids(data, size), skip_special)), out)
}

#[no_mangle]
pub unsafe extern "C" fn echelon_tokenizer_token_to_id(
    tokenizer: *const Arc<Tokenizer>,
    token: *const c_char,
    size: usize,
) -> i64 {
    let token = String::from_utf8_lossy(bytes(token, size));
    guard(|| Ok((*tokenizer).token_to_id(&token))).ok().flatten().map_or(-1, i64::from)
}

#[no_mangle]
pub unsafe extern "C" fn echelon_tokenizer_id_to_token(
    tokenizer: *const Arc<Tokenizer>,
    id: u32,
    out: *mut CString,
) -> bool {
    let token = guard(|| Ok((*tokenizer).id_to_token(id))).ok().flatten();
    let found = token.is_some();
    put_string(out, token.unwrap_or_default());
    found
}

#[no_mangle]
pub unsafe extern "C" fn echelon_tokenizer_vocab_size(tokenizer: *const Arc<Tokenizer>) -> usize {
    guard(|| Ok((*tokenizer).vocab_size())).unwrap_or(0)
}

#[no_mangle]
pub unsafe extern "C" fn echelon_tokenizer_added_tokens(tokenizer: *const Arc<Tokenizer>, out: *mut CString) -> i32 {
    finish(guard(|| Ok((*tokenizer).added_tokens())), out)
}

#[no_mangle]
pub unsafe extern "C" fn echelon_decode_stream_new(
    tokenizer: *const Arc<Tokenizer>,
    skip_special: bool,
) -> *mut Stream {
    Box::into_raw(Box::new(Stream::new(Arc::clone(&*tokenizer), skip_special)))
}

#[no_mangle]
pub unsafe extern "C" fn echelon_decode_stream_free(stream: *mut Stream) {
    unbox(stream);
}

#[no_mangle]
pub unsafe extern "C" fn echelon_decode_stream_push(
    stream: *mut Stream,
    data: *const u32,
    size: usize,
    out: *mut CString,
) -> i32 {
    finish(guard(|| (*stream).push(ids(data, size))), out)
}

#[no_mangle]
pub unsafe extern "C" fn echelon_decode_stream_flush(stream: *mut Stream, out: *mut CString) -> i32 {
    finish(guard(|| (*stream).flush()), out)
}

#[no_mangle]
pub unsafe extern "C" fn echelon_template_new(
    source: *const c_char,
    size: usize,
    error: *mut CString,
) -> *mut Template {
    let source = String::from_utf8_lossy(bytes(source, size));
    boxed(guard(|| Template::new(&source)), error)
}

#[no_mangle]
pub unsafe extern "C" fn echelon_template_free(template: *mut Template) {
    unbox(template);
}

#[no_mangle]
pub unsafe extern "C" fn echelon_template_render(
    template: *const Template,
    variables: *const CVariable,
    count: usize,
    limits: Limits,
    now_s: i64,
    out: *mut CString,
) -> i32 {
    let variables = if count == 0 { &[] } else { std::slice::from_raw_parts(variables, count) };
    let text = |data, size| String::from_utf8_lossy(bytes(data, size)).into_owned();
    let variables: Vec<(String, String)> =
        variables.iter().map(|v| (text(v.name, v.name_size), text(v.json, v.json_size))).collect();
    finish(guard(|| (*template).render(&variables, limits, now_s)), out)
}
