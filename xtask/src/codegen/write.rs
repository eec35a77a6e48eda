//! The writing half of a structure: a statement for each field, by type and version.

use std::fmt::Write as _;

use anyhow::Result;

use super::emit::{Module, Resolved};
use super::types::{Type, When};

impl Module<'_> {
    pub(super) fn write_body(&self, fields: &[Resolved<'_>], flexible: bool) -> Result<String> {
        let mut out = String::new();
        for field in fields.iter().filter(|f| f.tag.is_none()) {
            let value = self.write_field(field)?;
            match When::of(field.versions, self.valid) {
                When::If(when) => {
                    write!(out, "if {when} {{ {value} }}")?;
                    if !field.schema.ignorable {
                        write!(
                            out,
                            " else if {} {{ return Err(EncodeError::Field {{ field: \"{}\", version: v }}); }}",
                            field.differs(),
                            field.schema.name
                        )?;
                    }
                    out.push('\n');
                }
                _ => writeln!(out, "{value}")?,
            }
        }
        if flexible {
            let section = self.write_tags(fields)?;
            match self.flex() {
                "true" => writeln!(out, "{section}")?,
                _ => writeln!(out, "if flex {{ {section} }}")?,
            }
        }
        out.push_str("Ok(())\n");
        Ok(out)
    }

    fn write_tags(&self, fields: &[Resolved<'_>]) -> Result<String> {
        let mut tagged: Vec<_> = fields.iter().filter(|f| f.tag.is_some()).collect();
        tagged.sort_by_key(|f| f.tag);
        if tagged.is_empty() {
            return Ok("w.unknown_tags(&self.unknown)?;".into());
        }
        let mut counts = Vec::new();
        let mut writes = String::new();
        for field in tagged {
            let mut when = field.differs();
            if let When::If(version) = When::of(field.versions, self.flexible) {
                when = format!("{version} && {when}");
            }
            counts.push(format!("usize::from({when})"));
            writeln!(
                writes,
                "if {when} {{ tags.known(w, {}, |w| {{ {} Ok(()) }})?; }}",
                field.tag.unwrap_or_default(),
                self.write_field(field)?
            )?;
        }
        Ok(format!(
            "let known = {};\nlet mut tags = w.start_tags(known, &self.unknown)?;\n{writes}tags.finish(w)?;",
            counts.join(" + ")
        ))
    }

    fn write_field(&self, field: &Resolved<'_>) -> Result<String> {
        let this = format!("self.{}", field.name);
        if !field.nullable {
            let reference = match field.ty {
                Type::Fixed(..) | Type::Struct(_) => this,
                _ => format!("&{this}"),
            };
            return Ok(self.write_value(&field.ty, &reference));
        }
        let null = match (&field.ty, field.tag) {
            (Type::Struct(_), Some(_)) => {
                format!("w.nullable_tagged_struct({this}.as_ref(), |w, x| x.write(w, v))?;")
            }
            _ => self.write_nullable(&field.ty, &this),
        };
        let plain = self.write_value(
            &field.ty,
            &format!("required(&{this}, \"{}\")?", field.schema.name),
        );
        Ok(match When::of(field.schema.nullable_versions, field.versions) {
            When::Always => null,
            When::Never => plain,
            When::If(when) => format!("if {when} {{ {null} }} else {{ {plain} }}"),
        })
    }

    fn write_value(&self, ty: &Type, value: &str) -> String {
        let flex = self.flex();
        match ty {
            Type::Fixed(_, method, _) => format!("w.{method}({value});"),
            Type::Str => format!("w.string({value}, {flex})?;"),
            Type::Bytes => format!("w.bytes({value}, {flex})?;"),
            Type::Records => format!("w.records({value}, {flex})?;"),
            Type::Struct(_) => format!("{value}.write(w, v)?;"),
            Type::Array(element) => format!("w.array({value}, {flex}, {})?;", self.element_writer(element)),
        }
    }

    fn write_nullable(&self, ty: &Type, value: &str) -> String {
        let flex = self.flex();
        match ty {
            Type::Fixed(..) => unreachable!("refused when read"),
            Type::Str => format!("w.nullable_string({value}.as_ref(), {flex})?;"),
            Type::Bytes => format!("w.nullable_bytes({value}.as_ref(), {flex})?;"),
            Type::Records => format!("w.nullable_records({value}.as_ref(), {flex})?;"),
            Type::Struct(_) => format!("w.nullable_struct({value}.as_ref(), |w, x| x.write(w, v))?;"),
            Type::Array(element) => {
                format!(
                    "w.nullable_array({value}.as_deref(), {flex}, {})?;",
                    self.element_writer(element)
                )
            }
        }
    }

    fn element_writer(&self, element: &Type) -> String {
        match element {
            Type::Fixed(_, method, _) => format!("|w, x| {{ w.{method}(*x); Ok(()) }}"),
            Type::Struct(_) => "|w, x| x.write(w, v)".into(),
            other => {
                let value = self.write_value(other, "x");
                format!("|w, x| {}", value.trim_end_matches(';').trim_end_matches('?'))
            }
        }
    }
}
