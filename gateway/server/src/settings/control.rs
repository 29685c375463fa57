//! How the gateway reaches its control plane, where it has one.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
