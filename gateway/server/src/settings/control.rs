//! How the gateway reaches its control plane, where it has one.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Settings;
use super::document::{self, Kind, Node};
use super::field::{At, Field, Optional};
use super::mistake::{Findings, MistakeCode, Position};
use super::show::beside;

/// Longest path of a socket in bytes, its ending zero left out (`sockaddr_un`).
const SOCKET_PATH_MAX_BYTES: usize = 107;

/// The sockets of the control plane, of both of which the gateway is the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Control {
    /// Where it tells what is true, by gRPC.
    pub socket: PathBuf,
    /// Where it takes streams that are handed over.
    pub handover: PathBuf,
}

/// The sockets of the control plane. Without this section the gateway follows its file alone.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawControl {
    /// Where it tells what is true. Default `<stateDir>/control.sock`.
    socket: Option<Field<PathBuf>>,
    /// Where it takes streams that are handed over. Default `<stateDir>/handover.sock`.
    handover: Option<Field<PathBuf>>,
}

impl Control {
    /// The sockets a control plane has unless told otherwise.
    pub fn in_state_dir(state_dir: &Path) -> Self {
        Self {
            socket: state_dir.join("control.sock"),
            handover: state_dir.join("handover.sock"),
        }
    }

    /// The socket on which the control plane of a node answers, however wrong the rest of its configuration is: the one
    /// that a gateway follows, or the one that a control plane of its own names for itself.
    pub fn socket_of(text: &str, origin: &Path) -> PathBuf {
        let root = document::parse(text, &mut Findings::default());
        let named = root.as_ref().and_then(|root| {
            let section = entry(root, "control").unwrap_or(root);
            match &entry(section, "socket")?.kind {
                Kind::Scalar(path) => Some(beside(origin, Path::new(path))),
                Kind::Null | Kind::List(_) | Kind::Map(_) => None,
            }
        });
        let by_default = || Self::in_state_dir(&Settings::state_dir_of(text, origin)).socket;
        named.unwrap_or_else(by_default)
    }

    pub(super) fn read(
        raw: At<RawControl>,
        state_dir: &Path,
        origin: &Path,
        found: &mut Findings,
    ) -> Self {
        let At { at, value: raw } = raw;
        let default = Self::in_state_dir(state_dir);
        let mut socket = |field: Option<Field<PathBuf>>, default| {
            let place = field.as_ref().map_or(at, |field| field.at);
            let path = field
                .optional(found)
                .map_or(default, |path| beside(origin, &path));
            check_length(&path, place, found);
            path
        };
        Self {
            socket: socket(raw.socket, default.socket),
            handover: socket(raw.handover, default.handover),
        }
    }
}

fn entry<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    let Kind::Map(entries) = &node.kind else {
        return None;
    };
    let mut entries = entries.iter();
    let (_, value) = entries.find(|(found, _)| found.text == key)?;
    Some(value)
}

fn check_length(path: &Path, at: Position, found: &mut Findings) {
    let bytes = path.as_os_str().len();
    if bytes > SOCKET_PATH_MAX_BYTES {
        found.add(
            at,
            MistakeCode::InvalidPath,
            format!(
                "the path of a socket has at most {SOCKET_PATH_MAX_BYTES} bytes, this one has {bytes}"
            ),
            "write a shorter path, such as one under /run",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_known_whatever_else_is_wrong() {
        let origin = Path::new("/etc/corinth/node.yaml");
        for (text, socket) in [
            ("stateDir: s\n", "s/control.sock"),
            ("stateDir: s\ncontrol: {socket: c.sock}\n", "c.sock"),
            (
                "stateDir: s\ncontrol:\n  socket: run/c.sock\nworkers: -3\n",
                "run/c.sock",
            ),
            (
                "stateDir: s\ncontrol: {handover: h.sock}\n",
                "s/control.sock",
            ),
            ("stateDir: s\nsocket: c.sock\nhandover: h.sock\n", "c.sock"),
            ("stateDir: s\ncontrol: [\n", "s/control.sock"),
        ] {
            let expected = Path::new("/etc/corinth").join(socket);
            assert_eq!(Control::socket_of(text, origin), expected, "{text}");
        }
    }
}
