//! JSON as Python reads it, where that differs from serde_json.

use crate::{Fault, Result};

/// A lone surrogate (`"\ud83d"`) is legal JSON to Python, and no character: it becomes U+FFFD.
fn without_lone_surrogates(text: &str) -> String {
    let unit = |at: usize| -> Option<u32> {
        let escape = text.get(at..at + 6)?;
        u32::from_str_radix(escape.strip_prefix("\\u")?, 16).ok()
    };
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(found) = text[at..].find('\\') {
        out.push_str(&text[at..at + found]);
        at += found;
        let length = match (unit(at), unit(at + 6)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
            (Some(0xD800..=0xDFFF), _) => {
                out.push('\u{FFFD}');
                at += 6;
                continue;
            }
            // A backslash and what it escapes; the latter may be of several bytes in broken JSON.
            _ => 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
        };
        out.push_str(&text[at..at + length]);
        at += length;
    }
    out.push_str(&text[at..]);
    out
}

/// `name` is the variable that the text is the value of; the empty name is that of all together.
pub fn parse(text: &str, name: &str) -> Result<serde_json::Value> {
    let what = if name.is_empty() { "the template's variables" } else { name };
    serde_json::from_str(text)
        .or_else(|error| {
            if error.to_string().contains("surrogate") || text.contains("\\u") {
                serde_json::from_str(&without_lone_surrogates(text))
            } else {
                Err(error)
            }
        })
        .map_err(|error| Fault::Invalid(format!("{what}: not valid JSON: {error}")))
}

/// Python's repr of a float, which is also what json.dumps writes: the shortest digits that read back as the same
/// number, fixed for exponents of -4 to 15, else scientific with a sign and two digits of exponent.
pub fn float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_string();
    }
    if value.is_infinite() {
        return if value < 0.0 { "-Infinity" } else { "Infinity" }.to_string();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let fixed = format!("{value}");
        return if fixed.contains('.') { fixed } else { fixed + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}
