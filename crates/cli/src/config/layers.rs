//! Where values come from: the file, and variables over it. Both are handed to figment under their own name, so that
//! an error can say where to look.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use figment::{
    Metadata, Profile, Provider,
    value::{Dict, Map, Value},
};

use super::{SECTIONS, section::Shape};
use crate::environment::Environment;

/// What every variable of ours begins with.
const PREFIX: &str = "TOKENKEEP__";

/// The configuration file.
pub(super) struct TomlFile {
    path: PathBuf,
    table: toml::Table,
}

impl TomlFile {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("the configuration file {} cannot be read", path.display()))?;
        let table = text.parse().map_err(|error| syntax_error(path, &text, &error))?;
        Ok(Self { path: path.to_owned(), table })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The items of `[[name]]`.
    pub(super) fn items(&self, name: &str) -> &[toml::Value] {
        self.table.get(name).and_then(toml::Value::as_array).map_or(&[], Vec::as_slice)
    }
}

/// Says where, never what: the line may hold a secret whose quotes are missing.
fn syntax_error(path: &Path, text: &str, error: &toml::de::Error) -> anyhow::Error {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    anyhow!("{}:{line}:{column}: this is not valid TOML: {}", path.display(), error.message())
}

impl Provider for &TomlFile {
    fn metadata(&self) -> Metadata {
        Metadata::from("file", self.path.as_path())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let Value::Dict(_, dict) = Value::serialize(&self.table)? else { return Ok(Map::new()) };
        Ok(Profile::Default.collect(dict))
    }
}

/// One variable: `TOKENKEEP__SERVER__LISTEN`.
pub(super) struct Variable {
    name: String,
    section: String,
    key: String,
    value: Value,
}

impl Variable {
    pub(super) fn all(environment: &Environment) -> Result<Vec<Self>> {
        environment.with_prefix(PREFIX).map(|(rest, value)| Self::read(rest, value)).collect()
    }

    fn read(rest: &str, value: &OsStr) -> Result<Self> {
        let name = format!("{PREFIX}{rest}");
        let lower = rest.to_ascii_lowercase();
        let Some((section, key)) = lower.split_once("__").filter(|(_, key)| !key.contains("__")) else {
            bail!("the environment variable {name} must be of the form {PREFIX}SECTION__KEY");
        };
        let text = value.to_str().ok_or_else(|| anyhow!("the environment variable {name} is not valid UTF-8"))?;
        let known = SECTIONS.iter().find(|known| known.name == section);
        if known.is_some_and(|known| known.many) {
            bail!(
                "the environment variable {name} names `[[{section}]]`, of which there may be many: those are set in the \
                 file (secrets with a key that ends in `_file`)"
            );
        }
        let shape = known.and_then(|known| known.keys.iter().find(|known| known.name == key)).map(|key| key.shape);
        if shape == Some(Shape::Tables) {
            bail!(
                "the environment variable {name} names `[[{section}.{key}]]`, of which there may be many: those are set in \
                 the file"
            );
        }
        let value = typed(text, shape.unwrap_or(Shape::Text))
            .map_err(|must| anyhow!("the environment variable {name} {must}"))?;
        Ok(Self { name, section: section.to_owned(), key: key.to_owned(), value })
    }
}

/// A variable is text; what it stands for decides how the text is read. Text stays as it is, whatever it looks like: a
/// secret that happens to be all digits must not become a number.
fn typed(text: &str, shape: Shape) -> Result<Value, &'static str> {
    match shape {
        Shape::Text | Shape::Table | Shape::Tables => Ok(text.into()),
        Shape::Number => text.trim().parse::<u64>().map(Value::from).map_err(|_| "must be a whole number"),
        Shape::Flag => text.trim().parse::<bool>().map(Value::from).map_err(|_| "must be `true` or `false`"),
        Shape::List => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(items.map(Value::from).collect::<Vec<_>>().into())
        }
    }
}

impl Provider for Variable {
    fn metadata(&self) -> Metadata {
        Metadata::named(format!("the environment variable {}", self.name))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let section = Dict::from([(self.key.clone(), self.value.clone())]);
        Ok(Profile::Default.collect(Dict::from([(self.section.clone(), section.into())])))
    }
}
