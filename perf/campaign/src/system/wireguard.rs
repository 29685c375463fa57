//! WireGuard in user space. The kernels of both gateways put the packets for one address of the server, and those for
//! one of the client, into a tunnel; connections go from end to end, as on the direct path.

use std::{fs, net::Ipv4Addr, path::Path, process::Command};

use crate::{
    Fault, Interrupt, Side,
    lab::{self, A_FAR, A_NEAR, B_FAR, B_NEAR, CONGESTION, is_left_behind, names_in},
    process,
};

use super::{Launch, Place, Ready, Recipe, SERVER_PORT, Step, SystemKey, words};

/// Where both programs put the socket by which they are configured, one for each device.
const SOCKETS: &str = "/var/run/wireguard";
/// What the names of our devices begin with; the process id follows. A name has at most 15 characters.
const DEVICE_PREFIX: &str = "cpw";
/// What WireGuard leaves of 1500 bytes, and its usual choice.
const MTU: u16 = 1420;

/// Private and public keys of both gateways, as WireGuard writes them.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Private and public key of gateway A.
    pub a: (String, String),
    /// Private and public key of gateway B.
    pub b: (String, String),
}

impl Keys {
    /// Stand in for keys where a recipe is only shown.
    pub fn shown() -> Self {
        let pair = |side: &str| {
            (
                format!("(private key of {side})"),
                format!("(public key of {side})"),
            )
        };
        Self {
            a: pair("A"),
            b: pair("B"),
        }
    }

    /// New ones.
    ///
    /// # Errors
    /// When `wg` does not make them.
    pub fn generate(wg: &str, folder: &Path, interrupt: &Interrupt) -> Result<Self, Fault> {
        let pair = |side: &str| {
            let mut private = Command::new(wg);
            private.arg("genkey");
            let private = process::output(private, interrupt)?.trim().to_owned();
            let path = folder.join(format!("{side}.wgkey"));
            fs::write(&path, &private).map_err(Fault::file(&path))?;
            let mut public = Command::new("sh");
            // `wg pubkey` reads standard input only.
            public
                .args(["-c", "exec \"$0\" pubkey <\"$1\"", wg])
                .arg(&path);
            let public = process::output(public, interrupt)?.trim().to_owned();
            Ok::<_, Fault>((private, public))
        };
        Ok(Self {
            a: pair("a")?,
            b: pair("b")?,
        })
    }
}

/// What tells the two apart.
struct Kind {
    key: SystemKey,
    /// In the names of devices.
    letter: char,
    /// Last part of the addresses of client and server.
    number: u8,
    port: u16,
}

/// wireguard-go.
pub fn wireguard_go(place: &Place, program: &str, wg: &str, keys: &Keys) -> Recipe {
    let kind = Kind {
        key: SystemKey::WireguardGo,
        letter: 'g',
        number: 13,
        port: 51821,
    };
    let command = |device: &str| words(&[program, "-f", device]);
    recipe(&kind, place, wg, keys, command)
}

/// boringtun-cli.
pub fn boringtun(place: &Place, program: &str, wg: &str, keys: &Keys) -> Recipe {
    let kind = Kind {
        key: SystemKey::Boringtun,
        letter: 'b',
        number: 14,
        port: 51822,
    };
    let threads = place.cpus.to_string();
    let command = |device: &str| {
        words(&[
            program,
            "--foreground",
            "--disable-drop-privileges",
            "--threads",
            &threads,
            device,
        ])
    };
    recipe(&kind, place, wg, keys, command)
}

fn recipe(
    kind: &Kind,
    place: &Place,
    wg: &str,
    keys: &Keys,
    command: impl Fn(&str) -> Vec<String>,
) -> Recipe {
    let client = Ipv4Addr::new(10, 71, 1, kind.number);
    let server = Ipv4Addr::new(10, 71, 3, kind.number);
    let mut recipe = Recipe::empty(kind.key, lab::at(server, SERVER_PORT), place);
    let port = kind.port;
    recipe.file(
        "a.conf",
        config(
            &keys.a.0,
            port,
            &keys.b.1,
            &server,
            &format!("{B_NEAR}:{port}"),
        ),
    );
    recipe.file(
        "b.conf",
        config(
            &keys.b.0,
            port,
            &keys.a.1,
            &client,
            &format!("{A_FAR}:{port}"),
        ),
    );
    let device = |side: Side| {
        format!(
            "{DEVICE_PREFIX}{}{}{}",
            std::process::id(),
            kind.letter,
            side.name()
        )
    };
    for side in [Side::B, Side::A] {
        let device = device(side);
        recipe.gateways.push(Launch {
            side,
            argv: command(&device),
            ready: Ready::File(Path::new(SOCKETS).join(format!("{device}.sock"))),
        });
        let (file, beyond) = match side {
            Side::A => ("a.conf", server),
            Side::B | Side::Client | Side::Server => ("b.conf", client),
        };
        let mut step = |argv| recipe.after.push(Step { side, argv });
        step(words(&[
            wg,
            "setconf",
            &device,
            &super::path_text(&recipe.folder.join(file)),
        ]));
        step(split(&format!("ip link set {device} mtu {MTU} up")));
        step(split(&format!("ip route add {beyond}/32 dev {device}")));
    }
    for (side, own, other, hop) in [
        (Side::Client, client, server, A_NEAR),
        (Side::Server, server, client, B_FAR),
    ] {
        let neighbour = if side == Side::Client {
            Side::A
        } else {
            Side::B
        };
        let towards = lab::device_towards(neighbour);
        let address = format!("{own}/32 dev {towards}");
        let route = format!("{other}/32 via {hop}");
        recipe.after.push(Step {
            side,
            argv: split(&format!("ip address add {address}")),
        });
        recipe.after.push(Step {
            side,
            argv: split(&format!(
                "ip route add {route} src {own} mtu {MTU} congctl {CONGESTION}"
            )),
        });
        recipe.undo.push(Step {
            side,
            argv: split(&format!("ip route del {route}")),
        });
        recipe.undo.push(Step {
            side,
            argv: split(&format!("ip address del {address}")),
        });
    }
    recipe
}

fn config(private: &str, port: u16, peer: &str, allowed: &Ipv4Addr, endpoint: &str) -> String {
    format!(
        "[Interface]
PrivateKey = {private}
ListenPort = {port}
[Peer]
PublicKey = {peer}
AllowedIPs = {allowed}/32
Endpoint = {endpoint}
"
    )
}

fn split(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Removes the sockets of devices whose campaign is gone.
pub(crate) fn sweep_sockets() {
    for name in names_in(SOCKETS) {
        if is_left_behind(&name, DEVICE_PREFIX) {
            let _ = fs::remove_file(Path::new(SOCKETS).join(name));
        }
    }
}
