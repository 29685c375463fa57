//! The repository as the guards see it: tracked files, manifests, the lock file, `cargo tree`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What most users run; the trees are those of this target, whatever the machine the tests run on.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The top of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the repository")
}

/// A tracked text file.
pub(crate) struct TextFile {
    /// Relative to the top, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl TextFile {
    pub(crate) fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path)
            .extension()
            .is_some_and(|own| own == extension)
    }

    /// Written by a generator, not by us.
    pub(crate) fn is_generated(&self) -> bool {
        let written = [".lock", ".html", ".svg", "baseline.json"];
        self.path.contains("/gen/") || written.iter().any(|end| self.path.ends_with(end))
    }
}

/// Paths of all tracked files, relative to the top.
pub(crate) fn tracked() -> Vec<String> {
    let safe = format!("safe.directory={}", root().display());
    let listing = run(Command::new("git").args(["-c", &safe, "ls-files", "-z"]));
    listing.split_terminator('\0').map(str::to_owned).collect()
}

/// All tracked files that are text; one that is deleted in the working tree is left out.
pub(crate) fn text_files() -> Vec<TextFile> {
    let read = |path: String| {
        let text = std::fs::read_to_string(root().join(&path)).ok()?;
        Some(TextFile { path, text })
    };
    tracked().into_iter().filter_map(read).collect()
}

/// The text of a file that must be there; `path` is relative to the top.
pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A crate of the workspace.
pub(crate) struct Member {
    pub(crate) name: String,
    /// Of its folder, relative to the top.
    pub(crate) folder: String,
    /// Crates of the workspace it depends on when built for users.
    pub(crate) uses: BTreeSet<String>,
    pub(crate) has_binary: bool,
}

/// All crates of the workspace.
pub(crate) fn members() -> Vec<Member> {
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--no-deps", "--format-version", "1"]))
            .expect("cargo metadata prints JSON");
    list(&metadata["packages"]).iter().map(member).collect()
}

fn member(package: &Value) -> Member {
    let folder = Path::new(text(&package["manifest_path"]))
        .parent()
        .and_then(|path| path.strip_prefix(root()).ok());
    let uses = list(&package["dependencies"])
        .iter()
        .filter(|dependency| dependency["kind"] != "dev" && dependency["path"].is_string())
        .map(|dependency| text(&dependency["name"]).to_owned());
    Member {
        name: text(&package["name"]).to_owned(),
        folder: folder
            .expect("members lie below the top")
            .display()
            .to_string(),
        uses: uses.collect(),
        has_binary: list(&package["targets"])
            .iter()
            .any(|target| list(&target["kind"]).iter().any(|kind| kind == "bin")),
    }
}

/// Names of all packages below `package`, itself included, over the given edges (`normal`, `normal,build`).
pub(crate) fn tree(package: &str, edges: &str) -> BTreeSet<String> {
    let listing = cargo(&[
        "tree", "-p", package, "-e", edges, "--target", TARGET, "--prefix", "none", "--format",
        "{p}",
    ]);
    listing
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// A package of Cargo.lock.
pub(crate) struct Locked {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// All packages of Cargo.lock.
pub(crate) fn locked() -> Vec<Locked> {
    let value = |block: &str, key: &str| {
        let line = block
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""))?;
        Some(line.trim_end_matches('"').to_owned())
    };
    let package = |block| {
        Some(Locked {
            name: value(block, "name")?,
            version: value(block, "version")?,
        })
    };
    read("Cargo.lock")
        .split("[[package]]")
        .skip(1)
        .filter_map(package)
        .collect()
}

fn cargo(arguments: &[&str]) -> String {
    let program: PathBuf = std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from);
    // Everything needed was fetched to build this test.
    run(Command::new(program).args(arguments).arg("--offline"))
}

fn run(command: &mut Command) -> String {
    let output = command
        .current_dir(root())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
