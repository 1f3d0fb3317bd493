//! `[[provider]]`: the installation's own providers, in the catalogue's own shape.

use anyhow::{Context, Result, anyhow};
use tokenkeep_engine::catalogue::{Catalogue, ProviderFile};

use super::{
    layers::TomlFile,
    section::{Key, MANY, Section, Shape},
};

/// Its keys are those of the files in `providers/`, whose README explains them all; here stand the usual ones.
pub(super) const SECTION: Section = Section {
    name: "provider",
    many: MANY,
    docs: &[
        " A provider that the catalogue lacks, or has wrong, in the catalogue's own shape (providers/README.md explains",
        " every key). One that has a built-in provider's id takes its place.",
    ],
    keys: &[
        Key { name: "id", docs: &[" Names it in `[[integration]]`."], example: "\"acme\"", shape: Shape::Text },
        Key { name: "authorize_url", docs: &[], example: "\"https://id.acme.example/authorize\"", shape: Shape::Text },
        Key { name: "token_url", docs: &[], example: "\"https://id.acme.example/token\"", shape: Shape::Text },
        Key {
            name: "rotation",
            docs: &[
                " What a spent refresh token is still good for: \"none\", \"overlap\", \"predecessor\", \"strict\" (the default,",
                " and right where nobody knows), or { grace = { seconds = 30, successor = \"same\" } }.",
            ],
            example: "\"strict\"",
            shape: Shape::Text,
        },
        Key { name: "api_hosts", docs: &[], example: "[\"api.acme.example\"]", shape: Shape::List },
    ],
};

/// The built-in catalogue with the providers of `file`.
pub(super) fn catalogue(file: Option<&TomlFile>) -> Result<Catalogue> {
    let Some(file) = file else { return Ok(Catalogue::builtin()) };
    let path = file.path().display();
    let custom = file
        .items(SECTION.name)
        .iter()
        .enumerate()
        .map(|(index, table)| {
            let id = table.get("id").and_then(toml::Value::as_str);
            let name =
                id.map_or_else(|| format!("[[provider]] number {}", index + 1), |id| format!("[[provider]] {id}"));
            let provider: ProviderFile = table
                .clone()
                .try_into()
                .map_err(|error: toml::de::Error| anyhow!("{path}: {name}: {}", error.message()))?;
            provider.into_provider(&name).with_context(|| format!("{path}"))
        })
        .collect::<Result<Vec<_>>>()?;
    Catalogue::with(custom).with_context(|| format!("{path}"))
}
