//! The repository, and what was built in it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

/// Its top, if this is run or was built in one.
pub(crate) fn top() -> Option<PathBuf> {
    let is_top = |path: &&Path| path.join("perf/cli").is_dir() && path.join("Cargo.toml").is_file();
    let top_of = |path: &Path| path.ancestors().find(is_top).map(Path::to_owned);
    let here = std::env::current_dir().ok();
    let own = std::env::current_exe().ok();
    [here, own]
        .into_iter()
        .flatten()
        .find_map(|path| top_of(&path))
}

/// Our gateway: the one that was named, or what was built last for shipping, or for trying.
pub(crate) fn gateway(
    named: Option<&Path>,
    repository: Option<&Path>,
) -> anyhow::Result<Option<PathBuf>> {
    if let Some(path) = named {
        if !path.is_file() {
            bail!("there is no {}", path.display());
        }
        return Ok(Some(fs::canonicalize(path)?));
    }
    let built = |top: &Path| {
        let paths = ["dist", "release"]
            .map(|profile| top.join("target").join(profile).join("corinth-gateway"));
        paths.into_iter().find(|path| path.is_file())
    };
    Ok(repository.and_then(built))
}

/// The command line without the folder of the program.
pub(crate) fn command() -> String {
    let mut words = std::env::args();
    let program = words.next().unwrap_or_default();
    let program = Path::new(&program).file_name().map_or_else(
        || "corinth-perf".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    );
    std::iter::once(program)
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

/// What a measurement wrote: JSON of that schema.
pub(crate) fn read<T: serde::de::DeserializeOwned>(
    path: &Path,
    writer: &str,
    schema: &str,
    schema_of: impl Fn(&T) -> &str,
) -> anyhow::Result<T> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let found: T = serde_json::from_str(&text)
        .with_context(|| format!("{} is not what {writer} writes", path.display()))?;
    let has = schema_of(&found);
    if has != schema {
        bail!("{} has schema {has}, not {schema}", path.display());
    }
    Ok(found)
}

/// JSON for people too.
pub(crate) fn json(what: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(what)? + "\n")
}

/// Writes a file that a measurement gave.
pub(crate) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
