//! The reading half of a structure: an expression for each field, by type and version.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::emit::{Module, Resolved};
use super::schema::Versions;
use super::types::{Type, When};

impl Module<'_> {
    pub(super) fn read_body(&self, fields: &[Resolved<'_>], flexible: bool) -> Result<String> {
        let mut out = String::new();
        let tagged: Vec<_> = fields.iter().filter(|f| f.tag.is_some()).collect();
        for field in fields.iter().filter(|f| f.tag.is_none()) {
            let value = self.read_field(field)?;
            match When::of(field.versions, self.valid) {
                When::If(when) => writeln!(
                    out,
                    "let {} = if {when} {{ {value} }} else {{ {} }};",
                    field.name,
                    field.default_value()
                )?,
                _ => writeln!(out, "let {} = {value};", field.name)?,
            }
        }
        for field in &tagged {
            writeln!(out, "let mut {} = {};", field.name, field.default_value())?;
        }
        if flexible {
            let section = if tagged.is_empty() {
                "r.unknown_tags()?".to_string()
            } else {
                let mut arms = String::new();
                for field in &tagged {
                    let guard = match When::of(field.versions, self.flexible) {
                        When::If(when) => format!(" if {when}"),
                        _ => String::new(),
                    };
                    let value = self.read_field(field)?;
                    writeln!(
                        arms,
                        "{}{guard} => {} = {value},",
                        field.tag.unwrap_or_default(),
                        field.name
                    )?;
                    // A tag of other versions is no unknown one: Kafka refuses it.
                    if !guard.is_empty() {
                        writeln!(
                            arms,
                            "{} => return Err(DecodeError::TagVersion(tag)),",
                            field.tag.unwrap_or_default()
                        )?;
                    }
                }
                format!("r.tags(|r, tag| {{ match tag {{ {arms} _ => return Ok(false), }} Ok(true) }})?")
            };
            match self.flex() {
                "true" => writeln!(out, "let unknown = {section};")?,
                _ => {
                    writeln!(
                        out,
                        "let unknown = if flex {{ {section} }} else {{ UnknownTags::default() }};"
                    )?;
                }
            }
        }
        let mut names: Vec<&str> = fields.iter().map(|f| f.name.as_str()).collect();
        if flexible {
            names.push("unknown");
        }
        writeln!(out, "Ok(Self {{ {} }})", names.join(", "))?;
        Ok(out)
    }

    fn read_field(&self, field: &Resolved<'_>) -> Result<String> {
        if !field.nullable {
            return self.read_value(&field.ty, field.versions);
        }
        let null = match (&field.ty, field.tag) {
            (Type::Struct(name), Some(_)) => format!("r.nullable_tagged_struct(|r| {name}::read(r, v))?"),
            _ => self.read_nullable(&field.ty, field.versions)?,
        };
        Ok(match When::of(field.schema.nullable_versions, field.versions) {
            When::Always => null,
            When::Never => format!("Some({})", self.read_value(&field.ty, field.versions)?),
            When::If(when) => {
                let value = self.read_value(&field.ty, field.versions)?;
                format!("if {when} {{ {null} }} else {{ Some({value}) }}")
            }
        })
    }

    fn read_value(&self, ty: &Type, given: Versions) -> Result<String> {
        let flex = self.flex();
        Ok(match ty {
            Type::Fixed(_, method, _) => format!("r.{method}()?"),
            Type::Str => format!("r.string({flex})?"),
            Type::Bytes => format!("r.bytes({flex})?"),
            Type::Records => format!("r.records({flex})?"),
            Type::Struct(name) => format!("{name}::read(r, v)?"),
            Type::Array(element) => {
                let min = self.min_size(element, given)?;
                format!(
                    "r.array({flex}, {min}, {})?",
                    self.element_reader(element, given)?
                )
            }
        })
    }

    fn read_nullable(&self, ty: &Type, given: Versions) -> Result<String> {
        let flex = self.flex();
        Ok(match ty {
            Type::Fixed(name, ..) => anyhow::bail!("{name} cannot be null"),
            Type::Str => format!("r.nullable_string({flex})?"),
            Type::Bytes => format!("r.nullable_bytes({flex})?"),
            Type::Records => format!("r.nullable_records({flex})?"),
            Type::Struct(name) => format!("r.nullable_struct(|r| {name}::read(r, v))?"),
            Type::Array(element) => {
                let min = self.min_size(element, given)?;
                format!(
                    "r.nullable_array({flex}, {min}, {})?",
                    self.element_reader(element, given)?
                )
            }
        })
    }

    fn element_reader(&self, element: &Type, given: Versions) -> Result<String> {
        Ok(match element {
            Type::Fixed(_, method, _) => format!("Reader::{method}"),
            Type::Struct(name) => format!("|r| {name}::read(r, v)"),
            other => {
                let value = self.read_value(other, given)?;
                format!("|r| {}", value.trim_end_matches('?'))
            }
        })
    }

    /// The fewest bytes that a value can take on the wire, over all of the given versions: a claimed
    /// element count is checked against it before memory is reserved.
    fn min_size(&self, ty: &Type, given: Versions) -> Result<usize> {
        let name = match ty {
            Type::Fixed(_, _, size) => return Ok(*size),
            Type::Struct(name) => name,
            _ => return Ok(1),
        };
        let mut total = usize::from(When::of(self.flexible, given) == When::Always);
        let fields = self
            .structs
            .get(name)
            .copied()
            .with_context(|| format!("no structure {name}"))?;
        for field in fields {
            let versions = field.versions.unwrap_or(field.tagged_versions);
            if field.tag.is_some() || When::of(versions, given) != When::Always {
                continue;
            }
            let nullable = When::of(field.nullable_versions, given) != When::Never;
            total += if nullable {
                1
            } else {
                self.min_size(&Type::parse(&field.type_text)?, given)?
            };
        }
        Ok(total.max(1))
    }
}
