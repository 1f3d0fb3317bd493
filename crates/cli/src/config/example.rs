//! `tokenkeep.example.toml`, written by the declarations of the sections themselves.

use std::fmt::Write as _;

use super::{
    SECTIONS,
    section::{Key, Section, Shape},
};

const OPENING: &str = "\
# tokenkeep's configuration. Everything here has a default: `tokenkeep serve` needs no file at all.
#
# It is read from `--config FILE`, else from `tokenkeep.toml` in the working directory. A variable goes over it:
# TOKENKEEP__SECTION__KEY, so TOKENKEEP__SERVER__LISTEN for `listen` below. Every secret `x` can be given as `x_file`.
# A key that is not known is an error. `tokenkeep config check` reads the file and says what it means.
";

/// The whole file.
pub(crate) fn example_toml() -> String {
    let mut text = OPENING.to_owned();
    for section in &SECTIONS {
        write_section(&mut text, section).expect("writing to a String cannot fail");
    }
    text
}

fn write_section(text: &mut String, section: &Section) -> std::fmt::Result {
    writeln!(text)?;
    for line in section.docs {
        writeln!(text, "#{line}")?;
    }
    // A table of which there may be many is shown as a comment: written out, it would be one more of them.
    if section.many {
        writeln!(text, "# [[{}]]", section.name)?;
    } else {
        writeln!(text, "[{}]", section.name)?;
    }
    for key in shown(section) {
        for line in key.docs {
            writeln!(text, "#{line}")?;
        }
        writeln!(text, "# {} = {}", key.name, key.example)?;
    }
    Ok(())
}

/// The keys that stand in it; what has a section of its own stands there.
fn shown(section: &Section) -> impl Iterator<Item = &Key> {
    section.keys.iter().filter(|key| key.shape != Shape::Tables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, environment::Environment};

    /// Taken at its word, line by line, the example is a valid configuration.
    #[test]
    fn every_example_line_is_valid() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("all.toml");
        let uncommented: String = example_toml()
            .lines()
            .filter_map(|line| {
                let bare = line.strip_prefix("# ").unwrap_or(line);
                let is_key = SECTIONS.iter().flat_map(shown).any(|key| bare.starts_with(&format!("{} = ", key.name)));
                (is_key || bare.starts_with('[')).then(|| format!("{bare}\n"))
            })
            .collect();
        std::fs::write(&path, &uncommented).unwrap();
        let config = Config::load(Some(&path), &Environment::default()).unwrap();
        assert_eq!(config.integrations.len(), 1);
        // Two keys take a table with a pair in it.
        assert_eq!(uncommented.matches(" = ").count(), SECTIONS.iter().map(|s| shown(s).count()).sum::<usize>() + 2);
    }

    /// The file as it is generated changes nothing.
    #[test]
    fn the_example_file_is_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("example.toml");
        std::fs::write(&path, example_toml()).unwrap();
        let example = Config::load(Some(&path), &Environment::default()).unwrap();
        let nothing = Config::load(None, &Environment::default()).unwrap();
        assert_eq!(format!("{:?}", example.server), format!("{:?}", nothing.server));
        assert!(example.integrations.is_empty() && example.keys.is_empty());
    }
}
