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
    let git = here
        .ancestors()
        .map(|above| above.join(".git"))
        .find(|git| git.is_dir())?;
    revision(&git)
}

fn revision(git: &Path) -> Option<String> {
    let head = read(git.join("HEAD"))?;
    let Some(name) = head.strip_prefix("ref: ") else {
        return Some(short(&head));
    };
    if let Some(revision) = read(git.join(name)) {
        return Some(short(&revision));
    }
    let packed = read(git.join("packed-refs"))?;
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
        let git = tempfile::tempdir().unwrap();
        assert_eq!(revision(git.path()), None);
        fs::write(git.path().join("HEAD"), "ref: refs/heads/main\n").unwrap();
        fs::write(
            git.path().join("packed-refs"),
            "0123456789abcdef refs/heads/main\n",
        )
        .unwrap();
        assert_eq!(revision(git.path()).as_deref(), Some("0123456789ab"));
        fs::create_dir_all(git.path().join("refs/heads")).unwrap();
        fs::write(git.path().join("refs/heads/main"), "fedcba9876543210\n").unwrap();
        assert_eq!(revision(git.path()).as_deref(), Some("fedcba987654"));
    }
}
