//! Which control plane is meant: the one of `--control`, of `--config`, or of the variables that stand for them.

use std::{
    env,
    ffi::OsString,
    fmt,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use corinth_gateway::settings::Settings;

use crate::{
    args::{ControlArgs, ControlsArgs},
    config,
    exit::Exit,
    trouble::Trouble,
};

/// The socket, in the state directory.
const SOCKET: &str = "control.sock";

/// Where a control plane answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) socket: PathBuf,
    /// Where the gateway beside it shows itself, if that is known.
    pub(crate) admin: Option<String>,
}

impl Place {
    pub(crate) fn socket(path: &Path) -> Self {
        Self {
            socket: path.to_owned(),
            admin: None,
        }
    }

    /// The control plane of the node that this file configures. It may run although the file has a mistake by now.
    pub(crate) fn of_config(path: &Path) -> Result<Self, Trouble> {
        let text = config::read(path)?;
        let settings = Settings::parse(&text, path).ok();
        Ok(Self {
            socket: Settings::state_dir_of(&text, path).join(SOCKET),
            admin: settings.map(|settings| settings.listen.admin.to_string()),
        })
    }

    /// A socket, or else a configuration.
    pub(crate) fn of_either(path: &Path) -> Result<Self, Trouble> {
        let is_socket = path
            .metadata()
            .is_ok_and(|metadata| metadata.file_type().is_socket());
        if is_socket || path.extension().is_some_and(|end| end == "sock") {
            return Ok(Self::socket(path));
        }
        Self::of_config(path)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.display().fmt(f)
    }
}

/// The one control plane that is meant.
pub(crate) fn place(args: &ControlArgs) -> Result<Place, Trouble> {
    let (control, config) = (args.control.as_deref(), args.config.as_deref());
    let mut places = named(control, config, |name| env::var_os(name))?;
    places.pop().ok_or_else(none_named)
}

/// All control planes that are meant, one or more.
pub(crate) fn places(args: &ControlsArgs) -> Result<Vec<Place>, Trouble> {
    let (controls, configs) = (args.control.iter(), args.config.iter());
    let places = named(
        controls.map(PathBuf::as_path),
        configs.map(PathBuf::as_path),
        |name| env::var_os(name),
    )?;
    if places.is_empty() {
        return Err(none_named());
    }
    Ok(places)
}

/// What is typed comes before what the environment says, so that a variable never leads to another cluster than the
/// one that was typed.
fn named<'a>(
    controls: impl IntoIterator<Item = &'a Path>,
    configs: impl IntoIterator<Item = &'a Path>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<Place>, Trouble> {
    let controls = controls.into_iter().map(|path| Ok(Place::socket(path)));
    let configs = configs.into_iter().map(Place::of_config);
    let typed: Vec<_> = controls.chain(configs).collect::<Result<_, _>>()?;
    if !typed.is_empty() {
        return Ok(typed);
    }
    let variable = |name| variable(name).filter(|value| !value.is_empty());
    if let Some(control) = variable("CORINTH_CONTROL") {
        return Ok(vec![Place::socket(Path::new(&control))]);
    }
    let config = variable("CORINTH_CONFIG").map(|path| Place::of_config(Path::new(&path)));
    config.into_iter().collect()
}

fn none_named() -> Trouble {
    Trouble::new(
        Exit::Usage,
        "it is not said which control plane to ask",
        "there is neither --control nor --config, and neither CORINTH_CONTROL nor CORINTH_CONFIG is set",
        "name the configuration of the node with --config FILE, or its socket with --control PATH",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(
        controls: &[&str],
        configs: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Vec<PathBuf>, Trouble> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let places = named(
            controls.iter().map(Path::new),
            configs.iter().map(Path::new),
            variable,
        )?;
        Ok(places.into_iter().map(|place| place.socket).collect())
    }

    #[test]
    fn what_is_typed_comes_before_what_the_environment_says() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("east.yaml");
        std::fs::write(&config, "cluster: east\nstateDir: east\n").unwrap();
        let config = config.to_str().unwrap();
        let of_config = folder.path().join("east/control.sock");
        let both = [("CORINTH_CONTROL", "/c.sock"), ("CORINTH_CONFIG", config)];

        let socket = PathBuf::from("/a.sock");
        assert_eq!(
            sockets(&["/a.sock"], &[config], &both).unwrap(),
            [socket, of_config.clone()]
        );
        assert_eq!(
            sockets(&[], &[config], &both).unwrap(),
            std::slice::from_ref(&of_config)
        );
        assert_eq!(
            sockets(&[], &[], &both).unwrap(),
            [PathBuf::from("/c.sock")]
        );
        assert_eq!(sockets(&[], &[], &both[1..]).unwrap(), [of_config]);
        assert!(
            sockets(&[], &[], &[("CORINTH_CONTROL", "")])
                .unwrap()
                .is_empty()
        );
        assert_eq!(
            sockets(&[], &["/nowhere.yaml"], &[]).unwrap_err().exit,
            Exit::Unreachable
        );
    }
}
