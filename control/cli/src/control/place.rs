//! Which control plane is meant: the one of `--control`, of `--config`, or of the variables that stand for them.

use std::{
    env,
    ffi::OsString,
    fmt,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use corinth_gateway::settings::Control;

use crate::{
    args::{ControlArgs, ControlsArgs},
    config::{self, NodeSettings},
    exit::Exit,
    trouble::Trouble,
};

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
        let settings = match NodeSettings::parse(&text, path) {
            Ok(NodeSettings::Gateway(settings)) => settings,
            Ok(NodeSettings::Control(settings)) => return Ok(Self::socket(&settings.socket)),
            Err(_) => return Ok(Self::socket(&Control::socket_of(&text, path))),
        };
        let control = match &settings.control {
            // A node with `gateways` runs a control plane itself.
            Some(control) if settings.gateways.is_empty() => control.clone(),
            Some(_) | None => Control::in_state_dir(&settings.state_dir),
        };
        Ok(Self {
            socket: control.socket,
            admin: Some(settings.listen.admin.to_string()),
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
    fn the_socket_is_the_one_that_the_configuration_names() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("node.yaml");
        let place = |text: &str| {
            std::fs::write(&config, format!("cluster: east\nstateDir: s\n{text}")).unwrap();
            let place = Place::of_config(&config).unwrap();
            let socket = place.socket.strip_prefix(folder.path()).unwrap();
            (socket.to_str().unwrap().to_owned(), place.admin.is_some())
        };
        for (text, socket, has_admin) in [
            ("", "s/control.sock", true),
            ("control: {socket: shared/c.sock}\n", "shared/c.sock", true),
            (
                "control: {handover: shared/h.sock}\n",
                "s/control.sock",
                true,
            ),
            (
                "control: {socket: c.sock}\ngateways: ['g:1']\n",
                "s/control.sock",
                true,
            ),
            (
                "socket: shared/c.sock\nleafLifetime: 24h\n",
                "shared/c.sock",
                false,
            ),
            ("objects: links.yaml\n", "s/control.sock", false),
            // With a mistake.
            ("control: {socket: c.sock}\nworkers: -1\n", "c.sock", false),
            ("socket: c.sock\nleafLifetime: 1d\n", "c.sock", false),
        ] {
            assert_eq!(place(text), (socket.to_owned(), has_admin), "{text}");
        }
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
