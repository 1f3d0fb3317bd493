//! Lists `providers/*.toml`, so that a new provider is a new file and nothing else.
//!
//! The list is made here rather than checked in because it holds nothing that a reader could learn from: one
//! `(file name, include_str!(path))` per file, sorted by name.

use std::{error::Error, fmt::Write as _, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../providers"));
    println!("cargo:rerun-if-changed={}", directory.display());
    println!("cargo:rerun-if-changed=build.rs");
    let mut files = Vec::new();
    for entry in fs::read_dir(&directory).map_err(|e| format!("{}: {e}", directory.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "toml") {
            files.push(path);
        }
    }
    files.sort_by(|a, b| a.file_stem().cmp(&b.file_stem()));
    let mut list = String::from("[\n");
    for path in files {
        let path = path.canonicalize()?;
        let (name, path) = path
            .file_stem()
            .and_then(|name| name.to_str())
            .zip(path.to_str())
            .ok_or("the path of a provider's file is not UTF-8")?;
        writeln!(list, "    ({name:?}, include_str!({path:?})),")?;
    }
    list.push_str("]\n");
    #[expect(clippy::disallowed_methods, reason = "cargo tells a build script where to write in no other way")]
    let out = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    fs::write(PathBuf::from(out).join("providers.rs"), list)?;
    Ok(())
}
