//! Field types, names and conditions on versions, as Rust text.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::schema::{Field, Versions};

/// The type of a field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Type {
    /// A fixed-size value: Rust's name, the reader's and writer's method, bytes on the wire.
    Fixed(&'static str, &'static str, usize),
    Str,
    Bytes,
    Records,
    Struct(String),
    Array(Box<Type>),
}

impl Type {
    pub fn parse(text: &str) -> Result<Type> {
        let text = text.trim();
        if let Some(element) = text.strip_prefix("[]") {
            let element = Type::parse(element)?;
            ensure!(
                !matches!(element, Type::Array(_)),
                "arrays of arrays are not known: {text}"
            );
            return Ok(Type::Array(Box::new(element)));
        }
        Ok(match text {
            "bool" => Type::Fixed("bool", "bool", 1),
            "int8" => Type::Fixed("i8", "i8", 1),
            "int16" => Type::Fixed("i16", "i16", 2),
            "uint16" => Type::Fixed("u16", "u16", 2),
            "int32" => Type::Fixed("i32", "i32", 4),
            "uint32" => Type::Fixed("u32", "u32", 4),
            "int64" => Type::Fixed("i64", "i64", 8),
            "float64" => Type::Fixed("f64", "f64", 8),
            "uuid" => Type::Fixed("Uuid", "uuid", 16),
            "string" => Type::Str,
            "bytes" => Type::Bytes,
            "records" => Type::Records,
            name if name.starts_with(char::is_uppercase) => Type::Struct(name.to_string()),
            name => bail!("unknown type {name}"),
        })
    }

    pub fn rust(&self) -> String {
        match self {
            Type::Fixed(name, ..) => (*name).to_string(),
            Type::Str => "Str".into(),
            Type::Bytes => "Bytes".into(),
            Type::Records => "Records".into(),
            Type::Struct(name) => name.clone(),
            Type::Array(element) => format!("Vec<{}>", element.rust()),
        }
    }

    /// The structure that this is, or that it is an array of.
    pub fn struct_name(&self) -> Option<&str> {
        match self {
            Type::Struct(name) => Some(name),
            Type::Array(element) => element.struct_name(),
            _ => None,
        }
    }
}

/// The default value of a field, as Java has it.
#[derive(Clone, PartialEq, Debug)]
pub enum Default {
    /// `None`.
    Null,
    /// Whatever `Default::default()` gives for the non-null type.
    Zero,
    /// A literal of the fixed-size type.
    Literal(String),
}

impl Default {
    pub fn of(field: &Field, ty: &Type, nullable: bool) -> Result<Default> {
        // A JSON null counts as no default at all in Java's generator, whereas the text "null" is one.
        let text = match &field.default {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if text == "null" {
            ensure!(nullable, "{} defaults to null and is not nullable", field.name);
            return Ok(Default::Null);
        }
        let Type::Fixed(name, ..) = ty else {
            ensure!(text.is_empty(), "{}: unexpected default {text}", field.name);
            // Java initialises record fields with null, whatever their schema says.
            return Ok(if *ty == Type::Records && nullable {
                Default::Null
            } else {
                Default::Zero
            });
        };
        Ok(match (*name, text.as_str()) {
            (_, "" | "0" | "false") => Default::Zero,
            ("bool", "true") => Default::Literal(text),
            ("bool" | "Uuid", other) => bail!("{}: unexpected default {other}", field.name),
            (_, number) => {
                let value = match number.strip_prefix("0x") {
                    Some(hex) => i64::from_str_radix(hex, 16),
                    None => number.parse(),
                }
                .with_context(|| format!("{}: default {number}", field.name))?;
                Default::Literal(value.to_string())
            }
        })
    }
}

/// When something in a narrower range of versions holds, given that the version is in a wider one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum When {
    Never,
    Always,
    If(String),
}

impl When {
    pub fn of(range: Versions, given: Versions) -> When {
        let both = range.and(given);
        if both.is_empty() {
            return When::Never;
        }
        match (both.low > given.low, both.high < given.high) {
            (false, false) => When::Always,
            (true, false) => When::If(format!("v >= {}", both.low)),
            (false, true) => When::If(format!("v <= {}", both.high)),
            _ if both.low == both.high => When::If(format!("v == {}", both.low)),
            (true, true) => When::If(format!("({}..={}).contains(&v)", both.low, both.high)),
        }
    }
}

/// A schema's CamelCase name as a Rust snake_case name.
pub fn snake(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.chars().enumerate() {
        if c.is_uppercase() && i > 0 {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// A field's name as a Rust identifier.
pub fn ident(name: &str) -> String {
    const KEYWORDS: [&str; 20] = [
        "type", "match", "ref", "move", "use", "where", "async", "in", "self", "box", "final", "override",
        "abstract", "loop", "mod", "impl", "fn", "dyn", "static", "const",
    ];
    let name = snake(name);
    if KEYWORDS.contains(&name.as_str()) {
        format!("r#{name}")
    } else {
        name
    }
}
