//! Values as Python prints them: templates are written against Jinja2, where `{{ value }}` is str(value) and `tojson` is
//! json.dumps.

use std::fmt::Write;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

use crate::json;

/// Deeper values are refused: each level takes stack.
const MAX_DEPTH: usize = 256;

fn too_deep() -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("a value is nested more than {MAX_DEPTH} deep"))
}

fn items(value: &Value) -> Result<Vec<(Value, Value)>, Error> {
    value.try_iter()?.map(|key| Ok((key.clone(), value.get_item(&key)?))).collect()
}

fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    f64::try_from(value.clone()).map_or_else(|_| value.to_string(), json::float)
}

/// str(value).
pub fn str(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(String::new()),
        ValueKind::String => Ok(value.as_str().unwrap_or_default().to_string()),
        _ => {
            let mut out = String::new();
            repr(value, &mut out, 0)?;
            Ok(out)
        }
    }
}

/// repr(value).
fn repr(value: &Value, out: &mut String, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(too_deep());
    }
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => {
            let text = number(value);
            out.push_str(match text.as_str() {
                "NaN" => "nan",
                "Infinity" => "inf",
                "-Infinity" => "-inf",
                text => text,
            });
        }
        ValueKind::String => quote(value.as_str().unwrap_or_default(), out),
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            for (index, item) in value.try_iter()?.enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                repr(&item, out, depth + 1)?;
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (index, (key, item)) in items(value)?.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                repr(key, out, depth + 1)?;
                out.push_str(": ");
                repr(item, out, depth + 1)?;
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

fn quote(text: &str, out: &mut String) {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(mark);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == mark => {
                out.push('\\');
                out.push(c);
            }
            c if (c as u32) < 0x20 || (0x7F..=0xA0).contains(&(c as u32)) || c == '\u{AD}' => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c if is_unprintable(c) => {
                let _ = match c as u32 {
                    code @ 0x10000.. => write!(out, "\\U{code:08x}"),
                    code => write!(out, "\\u{code:04x}"),
                };
            }
            c => out.push(c),
        }
    }
    out.push(mark);
}

/// Spaces but the plain one, separators, format marks and private characters, which repr escapes.
fn is_unprintable(c: char) -> bool {
    matches!(c as u32, 0x1680 | 0x180E | 0x2000..=0x200F | 0x2028..=0x202F | 0x205F..=0x206F | 0x3000 | 0xE000..=0xF8FF
        | 0xFEFF | 0xFFF0..=0xFFFB | 0xFFFE..=0xFFFF | 0xE0000..=0x10FFFF)
}

/// How json.dumps is asked to write.
pub struct Dumps {
    pub ensure_ascii: bool,
    pub indent: Option<String>,
    pub item_separator: String,
    pub key_separator: String,
    pub sort_keys: bool,
}

impl Dumps {
    /// json.dumps(value).
    pub fn write(&self, value: &Value) -> Result<String, Error> {
        let mut out = String::new();
        self.value(value, &mut out, 0)?;
        Ok(out)
    }

    fn value(&self, value: &Value, out: &mut String, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(too_deep());
        }
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => {
                let list: Vec<Value> = value.try_iter()?.collect();
                self.block(('[', ']'), list.len(), out, depth, |index, out| self.value(&list[index], out, depth + 1))?;
            }
            ValueKind::Map => {
                let mut map = items(value)?;
                if self.sort_keys {
                    map.sort_by(|a, b| a.0.cmp(&b.0));
                }
                self.block(('{', '}'), map.len(), out, depth, |index, out| {
                    self.key(&map[index].0, out)?;
                    out.push_str(&self.key_separator);
                    self.value(&map[index].1, out, depth + 1)
                })?;
            }
            kind => {
                let what = format!("tojson: a value of type {kind} has no JSON form");
                return Err(Error::new(ErrorKind::InvalidOperation, what));
            }
        }
        Ok(())
    }

    fn block(
        &self,
        marks: (char, char),
        size: usize,
        out: &mut String,
        depth: usize,
        mut item: impl FnMut(usize, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let line = |out: &mut String, depth: usize| {
            if let Some(indent) = &self.indent {
                out.push('\n');
                (0..depth).for_each(|_| out.push_str(indent));
            }
        };
        out.push(marks.0);
        for index in 0..size {
            out.push_str(if index > 0 { &self.item_separator } else { "" });
            line(out, depth + 1);
            item(index, out)?;
        }
        if size > 0 {
            line(out, depth);
        }
        out.push(marks.1);
        Ok(())
    }

    /// Keys that are no strings are written as strings.
    fn key(&self, key: &Value, out: &mut String) -> Result<(), Error> {
        match key.as_str() {
            Some(text) => self.string(text, out),
            None => {
                let mut text = String::new();
                self.value(key, &mut text, MAX_DEPTH)?;
                self.string(&text, out);
            }
        }
        Ok(())
    }

    fn string(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{C}' => out.push_str("\\f"),
                c if (c as u32) < 0x20 || (self.ensure_ascii && (c as u32) > 0x7E) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// datetime.fromtimestamp(now_s).strftime(format), in local time.
pub fn strftime(format: &str, now_s: i64) -> Result<String, Error> {
    let refuse = || Error::new(ErrorKind::InvalidOperation, "strftime_now: the format gives no text of at most 4096 bytes");
    if format.is_empty() {
        return Ok(String::new());
    }
    // With a mark at its end the text is never empty, so that 0 means failure.
    let marked = std::ffi::CString::new(format!("{format}.")).map_err(|_| refuse())?;
    let time = now_s as libc::time_t;
    let mut buffer = [0u8; 4096];
    // SAFETY: tm is plain data that localtime_r fills; strftime writes at most the buffer's size.
    let size = unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&time, &mut tm).is_null() {
            return Err(refuse());
        }
        libc::strftime(buffer.as_mut_ptr().cast(), buffer.len(), marked.as_ptr(), &tm)
    };
    if size == 0 {
        return Err(refuse());
    }
    Ok(String::from_utf8_lossy(&buffer[..size - 1]).into_owned())
}
