//! Chat templates: Jinja2 as transformers sets it up (trim_blocks, lstrip_blocks, loop controls, a sandbox without I/O),
//! bounded in size, depth and steps.

use std::cell::Cell;
use std::io;

use minijinja::value::{Kwargs, Rest, Value};
use minijinja::{Environment, Error, ErrorKind, Output, State};

use crate::python::{self, Dumps};
use crate::{json, Fault, Result};

const MAX_SOURCE_BYTES: usize = 1 << 20;
const MAX_CONTEXT_BYTES: usize = 64 << 20;
const MAX_RECURSION: usize = 100;
/// Values that a template nests without end are dropped level by level, on the stack: room for as many levels as steps.
const STACK_BYTES: usize = 256 << 20;

thread_local! {
    static NOW_S: Cell<i64> = const { Cell::new(0) };
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Limits {
    max_steps: u64,
    max_output_bytes: u64,
}

pub struct Template {
    environment: Environment<'static>,
}

/// What a template said by raise_exception, told from what went wrong in it.
#[derive(Debug)]
struct Raised(String);
impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for Raised {}

fn raise_exception(message: Value) -> std::result::Result<Value, Error> {
    let raised = Raised(python::str(&message)?);
    Err(Error::new(ErrorKind::InvalidOperation, "raised").with_source(raised))
}

fn strftime_now(format: &str) -> std::result::Result<String, Error> {
    python::strftime(format, NOW_S.get())
}

fn tojson(value: &Value, ascii: Option<bool>, options: Kwargs) -> std::result::Result<String, Error> {
    let ensure_ascii = ascii.or(options.get::<Option<bool>>("ensure_ascii")?).unwrap_or(false);
    let indent = options.get::<Option<Value>>("indent")?.filter(|indent| !indent.is_none());
    let indent = match indent {
        Some(indent) => Some(match indent.as_str() {
            Some(text) => text.to_string(),
            None => " ".repeat(i64::try_from(indent)?.clamp(0, 64) as usize),
        }),
        None => None,
    };
    let separators = options.get::<Option<Vec<String>>>("separators")?;
    let (item_separator, key_separator) = match separators.as_deref() {
        None if indent.is_some() => (",".to_string(), ": ".to_string()),
        None => (", ".to_string(), ": ".to_string()),
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => return Err(Error::new(ErrorKind::InvalidOperation, "tojson: separators is a pair")),
    };
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    Dumps { ensure_ascii, indent, item_separator, key_separator, sort_keys }.write(value)
}

fn join(value: &Value, glue: Option<&str>, attribute: Rest<Value>) -> std::result::Result<String, Error> {
    if !attribute.is_empty() {
        return Err(Error::new(ErrorKind::InvalidOperation, "join takes one argument; use map(attribute=...) before it"));
    }
    let parts = value.try_iter()?.map(|item| python::str(&item)).collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(parts.join(glue.unwrap_or_default()))
}

/// Jinja2's, which sees words after brackets and dashes too.
fn title(value: &Value) -> std::result::Result<String, Error> {
    let mut begins = true;
    let mut out = String::new();
    for c in python::str(value)?.chars() {
        if begins {
            out.extend(c.to_uppercase());
        } else {
            out.extend(c.to_lowercase());
        }
        begins = c.is_whitespace() || "-({[<".contains(c);
    }
    Ok(out)
}

fn print(out: &mut Output, _: &State, value: &Value) -> std::result::Result<(), Error> {
    Ok(match value.as_str() {
        Some(text) => out.write_str(text)?,
        None => out.write_str(&python::str(value)?)?,
    })
}

/// transformers marks what the assistant says by {% generation %}, for training; here it is a block like any other.
fn without_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(found) = rest.find("{%") {
        let (before, tag) = rest.split_at(found);
        out.push_str(before);
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let name = tag[2..end].trim_end_matches("%}").trim_matches(['-', '+']).trim();
        match name {
            "generation" => out.push_str(&tag[..end].replacen("generation", "with", 1)),
            "endgeneration" => out.push_str(&tag[..end].replacen("endgeneration", "endwith", 1)),
            _ => {
                out.push_str("{%");
                rest = &tag[2..];
                continue;
            }
        }
        rest = &tag[end..];
    }
    out + rest
}

/// Takes text up to a size.
struct Bounded {
    text: Vec<u8>,
    max_bytes: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if data.len() > self.max_bytes - self.text.len() {
            return Err(io::Error::from(io::ErrorKind::OutOfMemory));
        }
        self.text.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn describe(error: &Error) -> String {
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    let line = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    format!("{}{detail}{line}", error.kind())
}

fn raised(error: &Error) -> Option<&Raised> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref::<Raised>() {
            return Some(found);
        }
        source = error.source();
    }
    None
}

fn fault(error: &Error, limits: Limits) -> Fault {
    if let Some(raised) = raised(error) {
        return Fault::Invalid(format!("the template refuses the messages: {raised}"));
    }
    match error.kind() {
        ErrorKind::OutOfFuel => Fault::Limit(format!("the template takes more than {} steps", limits.max_steps)),
        ErrorKind::WriteFailure => {
            Fault::Limit(format!("the template writes more than {} bytes", limits.max_output_bytes))
        }
        _ => Fault::Invalid(format!("the template fails: {}", describe(error))),
    }
}

impl Template {
    pub fn new(source: &str) -> Result<Self> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(Fault::Limit(format!(
                "the template has {} bytes, and at most {MAX_SOURCE_BYTES} are taken",
                source.len()
            )));
        }
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_recursion_limit(MAX_RECURSION);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(print);
        environment.add_filter("tojson", tojson);
        environment.add_filter("string", |value: &Value| python::str(value));
        environment.add_filter("join", join);
        environment.add_filter("title", title);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment
            .add_template_owned("chat", without_generation(source))
            .map_err(|error| Fault::Invalid(format!("the template does not parse: {}", describe(&error))))?;
        Ok(Self { environment })
    }

    /// Renders on a thread of its own: the stack that a hostile template may need is not the caller's.
    pub fn render(&self, variables: &[(String, String)], limits: Limits, now_s: i64) -> Result<String> {
        let size: usize = variables.iter().map(|(_, json)| json.len()).sum();
        if size > MAX_CONTEXT_BYTES {
            return Err(Fault::Limit(format!(
                "the messages have {size} bytes, and at most {MAX_CONTEXT_BYTES} are taken"
            )));
        }
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("chat-template".to_string())
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, || {
                    crate::guard(|| {
                        NOW_S.set(now_s);
                        self.render_here(variables, limits)
                    })
                })
                .map_err(|error| Fault::Internal(format!("no thread for the chat template: {error}")))?
                .join()
                .unwrap_or_else(|_| Err(Fault::Internal("the chat template's thread panicked".to_string())))
        })
    }

    fn render_here(&self, variables: &[(String, String)], limits: Limits) -> Result<String> {
        let mut context = serde_json::Map::new();
        for (name, text) in variables {
            match (name.as_str(), json::parse(text, name)?) {
                ("", serde_json::Value::Object(many)) => context.extend(many),
                ("", _) => return Err(Fault::Invalid("the template's variables are no JSON object".to_string())),
                (name, value) => drop(context.insert(name.to_string(), value)),
            }
        }
        let is_chat = |messages: &Vec<serde_json::Value>| {
            !messages.is_empty() && messages.iter().all(serde_json::Value::is_object)
        };
        if !context.get("messages").and_then(serde_json::Value::as_array).is_some_and(is_chat) {
            return Err(Fault::Invalid("messages is not a list of one message or more, each an object".to_string()));
        }
        // A clone shares the compiled template.
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(limits.max_steps));
        let template = environment
            .get_template("chat")
            .map_err(|error| Fault::Internal(format!("the template is lost: {}", describe(&error))))?;
        let mut out = Bounded { text: Vec::new(), max_bytes: limits.max_output_bytes as usize };
        template
            .render_captured_to(Value::from_serialize(&context), &mut out)
            .map_err(|error| fault(&error, limits))?;
        String::from_utf8(out.text).map_err(|_| Fault::Internal("the template wrote what is not UTF-8".to_string()))
    }
}
