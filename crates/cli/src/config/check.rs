//! What is wrong with a configuration, said so that it can be mended: which key, where, and what was probably meant.
//! Values are never repeated: any of them may be a secret in the wrong place.

use anyhow::{Result, anyhow, bail};
use figment::{
    Figment, Metadata,
    error::Kind,
    value::{Dict, Value},
};

use super::{
    SECTIONS,
    nearest::nearest,
    providers,
    section::{Key, Section, Shape},
};

/// Sections of later versions.
const LATER_SECTIONS: [&str; 3] = ["mirror", "webhook", "audit"];

/// Refuses keys that nobody reads: a typing error must not silently mean the default.
pub(super) fn keys(figment: &Figment) -> Result<()> {
    // Figment's own extraction would refuse them too, but only knows the file of the table, not of the key.
    let Ok(data) = figment.find_value("") else { return Ok(()) };
    let Some(sections) = data.as_dict() else { return Ok(()) };
    for (name, value) in sections {
        let Some(section) = SECTIONS.iter().find(|section| section.name == name) else {
            return Err(unknown_section(name, &named(figment, value)));
        };
        keys_of(figment, section, value)?;
    }
    Ok(())
}

fn keys_of(figment: &Figment, section: &Section, value: &Value) -> Result<()> {
    let name = section.name;
    let tables: Vec<&Dict> = match (value, section.many) {
        (Value::Dict(_, table), false) => vec![table],
        (Value::Array(_, items), true) => items.iter().filter_map(Value::as_dict).collect(),
        (_, false) => bail!("{}: `{name}` must be a section: `[{name}]`", named(figment, value)),
        (_, true) => bail!("{}: `{name}` must be written `[[{name}]]`", named(figment, value)),
    };
    if name == providers::SECTION.name {
        return Ok(()); // in the catalogue's own shape, and checked there
    }
    for (key, value) in tables.into_iter().flatten() {
        let Some(known) = section.keys.iter().find(|known| known.name == key) else {
            return Err(unknown_key(section, key, &named(figment, value)));
        };
        if known.shape == Shape::Tables {
            let below = format!("{name}.{key}");
            let section = SECTIONS.iter().find(|section| section.name == below);
            keys_of(figment, section.expect("what holds tables has a section for them"), value)?;
        }
    }
    Ok(())
}

fn unknown_section(name: &str, place: &str) -> anyhow::Error {
    if LATER_SECTIONS.contains(&name) {
        return anyhow!("{place}: the section `{name}` is not in this version of tokenkeep; remove it");
    }
    let names = || SECTIONS.iter().map(|section| section.name);
    match nearest(name, names()) {
        Some(meant) => anyhow!("{place}: there is no section `{name}`; did you mean `{meant}`?"),
        None => anyhow!("{place}: there is no section `{name}`; there are {}", listed(names())),
    }
}

fn unknown_key(section: &Section, key: &str, place: &str) -> anyhow::Error {
    let table = if section.many { format!("[[{}]]", section.name) } else { format!("[{}]", section.name) };
    let names = || section.keys.iter().map(|Key { name, .. }| *name);
    match nearest(key, names()) {
        Some(meant) => anyhow!("{place}: there is no key `{key}` in {table}; did you mean `{meant}`?"),
        None => anyhow!("{place}: there is no key `{key}` in {table}; there are {}", listed(names())),
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// What figment found wrong with a value.
pub(super) fn value_error(error: &figment::Error) -> anyhow::Error {
    let place = error.metadata.as_ref().map_or_else(|| "the configuration".to_owned(), place);
    let key = error.path.join(".");
    let problem = match &error.kind {
        Kind::InvalidType(actual, expected) | Kind::InvalidValue(actual, expected) => {
            format!("must be {expected}, not {}", shape_of(actual))
        }
        Kind::UnknownVariant(_, expected) => format!("must be one of {}", listed(expected.iter().copied())),
        Kind::ISizeOutOfRange(_) | Kind::USizeOutOfRange(_) => "is out of range".to_owned(),
        Kind::Message(message) => format!("cannot be used: {message}"),
        _ => "cannot be used".to_owned(),
    };
    anyhow!("{place}: `{key}` {problem}")
}

fn shape_of(actual: &figment::error::Actual) -> &'static str {
    use figment::error::Actual;
    match actual {
        Actual::Bool(_) => "true or false",
        Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_) => "a number",
        Actual::Char(_) | Actual::Str(_) => "this text",
        Actual::Seq => "a list",
        Actual::Map => "a table",
        _ => "this",
    }
}

/// Who says what stands at `key`.
pub(super) fn origin(figment: &Figment, key: &str) -> String {
    figment.find_metadata(key).map_or_else(|| "the configuration".to_owned(), place)
}

fn named(figment: &Figment, value: &Value) -> String {
    // The tag of a merged table is that of one of its layers; a key in it knows better.
    let inner = match value {
        Value::Dict(_, table) => table.values().next().unwrap_or(value),
        Value::Array(_, items) => items.first().unwrap_or(value),
        _ => value,
    };
    figment
        .get_metadata(inner.tag())
        .or_else(|| figment.get_metadata(value.tag()))
        .map_or_else(|| "the configuration".to_owned(), place)
}

fn place(metadata: &Metadata) -> String {
    match metadata.source.as_ref().and_then(|source| source.file_path()) {
        Some(path) => path.display().to_string(),
        None => metadata.name.to_string(),
    }
}
