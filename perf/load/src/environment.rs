//! What a reader has to know about a machine to judge a figure.

use std::{fs, path::Path};

use crate::result::Environment;

impl Environment {
    /// This machine.
    pub fn here() -> Self {
        Self {
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            cpu: cpu_name(&read("/proc/cpuinfo").unwrap_or_default())
                .unwrap_or_else(|| "unknown".to_owned()),
            cpus: std::thread::available_parallelism().map_or(1, |count| count.get() as u32),
            governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            congestion_control: read("/proc/sys/net/ipv4/tcp_congestion_control"),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            git: option_env!("CORINTH_GIT")
                .map(str::to_owned)
                .or_else(revision_here),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            ..Self::default()
        }
    }
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

fn cpu_name(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The revision of the repository we stand in.
fn revision_here() -> Option<String> {
    let here = std::env::current_dir().ok()?;
    here.ancestors().find_map(revision_of)
}

/// The revision that is checked out in the repository, or the worktree of one, whose top is `top`.
pub fn revision_of(top: &Path) -> Option<String> {
    let git = top.join(".git");
    if git.is_dir() {
        return revision(&git, &git);
    }
    // Of a worktree the folder is elsewhere, and what worktrees share is elsewhere again.
    let own = top.join(read(&git)?.strip_prefix("gitdir: ")?);
    let common = read(own.join("commondir"))?;
    revision(&own, &own.join(common))
}

fn revision(own: &Path, common: &Path) -> Option<String> {
    let head = read(own.join("HEAD"))?;
    let Some(name) = head.strip_prefix("ref: ") else {
        return Some(short(&head));
    };
    if let Some(revision) = read(common.join(name)) {
        return Some(short(&revision));
    }
    let packed = read(common.join("packed-refs"))?;
    let line = packed
        .lines()
        .find(|line| line.ends_with(&format!(" {name}")))?;
    Some(short(line))
}

fn short(revision: &str) -> String {
    revision.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_called_as_it_calls_itself() {
        let cpuinfo = "processor\t: 0\nmodel name\t: A Processor @ 3 GHz\nmodel name\t: another\n";
        assert_eq!(cpu_name(cpuinfo).as_deref(), Some("A Processor @ 3 GHz"));
        assert_eq!(cpu_name(""), None);
    }

    #[test]
    fn the_revision_is_found_where_git_keeps_it() {
        let top = tempfile::tempdir().unwrap();
        let git = top.path().join(".git");
        fs::create_dir(&git).unwrap();
        assert_eq!(revision_of(top.path()), None);
        fs::write(git.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        fs::write(
            git.join("packed-refs"),
            "0123456789abcdef refs/heads/main\n",
        )
        .unwrap();
        assert_eq!(revision_of(top.path()).as_deref(), Some("0123456789ab"));
        fs::create_dir_all(git.join("refs/heads")).unwrap();
        fs::write(git.join("refs/heads/main"), "fedcba9876543210\n").unwrap();
        assert_eq!(revision_of(top.path()).as_deref(), Some("fedcba987654"));
    }

    #[test]
    fn a_worktree_has_a_revision_of_its_own() {
        let top = tempfile::tempdir().unwrap();
        let (tree, own) = (
            top.path().join("tree"),
            top.path().join("git/worktrees/tree"),
        );
        for folder in [&tree, &own, &top.path().join("git/refs/heads")] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(tree.join(".git"), format!("gitdir: {}\n", own.display())).unwrap();
        fs::write(own.join("commondir"), "../..\n").unwrap();
        fs::write(own.join("HEAD"), "ref: refs/heads/side\n").unwrap();
        fs::write(top.path().join("git/refs/heads/side"), "aaaaaaaaaaaaaaaa\n").unwrap();
        assert_eq!(revision_of(&tree).as_deref(), Some("aaaaaaaaaaaa"));
    }
}
