//! What gateways say whose control plane does not answer: above all, for how long their certificates do without it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use tokio::task::JoinSet;

use crate::{
    admin,
    args::{AdminArgs, StatusArgs},
    control::Place,
    run,
    terminal::{Mark, Style, plain},
    trouble::{Cause, Trouble},
};

/// Where a gateway shows itself unless told otherwise.
const ADMIN: &str = "127.0.0.1:15000";

const MINUTE_S: i64 = 60;
const HOUR_S: i64 = 60 * MINUTE_S;
const DAY_S: i64 = 24 * HOUR_S;

/// A cluster whose gateways go on without their control plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Alone {
    pub(super) cluster: String,
    pub(super) control_plane: Absence,
    /// Whether one of its gateways is connected to it all the same.
    is_connected: bool,
    /// The socket on which the control plane does not answer.
    socket: PathBuf,
    /// The admin addresses of the gateways that were asked.
    gateways: Vec<String>,
    /// When the first of their certificates expires, Unix seconds; 0 while one has none.
    certificate_not_after: i64,
    /// How many seconds that is from now, negative when it has passed.
    certificate_left_s: i64,
    /// Whether the control plane is who renews them.
    is_certificate_from_control: bool,
}

/// Why nothing is known from the control plane itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Absence {
    /// Nobody is there, or nobody answers.
    Unreachable,
    /// This user may not ask it.
    Forbidden,
}

impl From<Cause> for Absence {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Forbidden => Self::Forbidden,
            Cause::Other => Self::Unreachable,
        }
    }
}

impl Absence {
    /// As a table shows it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Unreachable => "no answer",
            Self::Forbidden => "not allowed",
        }
    }
}

/// What gateways said.
#[derive(Default)]
pub(super) struct Heard {
    /// For each control plane that is silent, what its gateways say, if any does.
    pub(super) alone: Vec<Option<Alone>>,
    /// Gateways that were asked for by name and did not say anything.
    pub(super) silent: Vec<Trouble>,
}

/// The page `/control` of a gateway.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    cluster: String,
    socket: PathBuf,
    connected: bool,
    certificate_not_after: i64,
    is_certificate_from_control: bool,
}

/// Asks the gateways that may follow those who are `silent`, all at once.
pub(super) fn ask(silent: &[(Place, Trouble)], args: &StatusArgs) -> Result<Heard, Trouble> {
    if silent.is_empty() {
        return Ok(Heard::default());
    }
    let configured = silent.iter().filter_map(|(place, _)| place.admin.clone());
    let mut addresses: BTreeSet<_> = args.admin.iter().cloned().chain(configured).collect();
    if addresses.is_empty() {
        addresses.insert(ADMIN.to_owned());
    }
    let timeout = args.controls.timeout;
    let mut answers = run::runtime()?.block_on(async {
        let mut asked = JoinSet::new();
        for admin in addresses {
            asked.spawn(async move {
                let asked = AdminArgs { admin, timeout };
                let page = admin::ask::<Page>(&asked, "/control").await;
                (asked.admin, page)
            });
        }
        asked.join_all().await
    });
    answers.sort_by(|(one, _), (other, _)| one.cmp(other));
    let (mut pages, mut without) = (Vec::new(), Vec::new());
    for (admin, answer) in answers {
        match answer {
            Ok(page) => pages.push((admin, page)),
            Err(trouble) if args.admin.contains(&admin) => without.push(trouble),
            // Whoever has no such page follows no control plane, or is no gateway.
            Err(_) => {}
        }
    }
    let now = Timestamp::now().as_second();
    let alone = silent
        .iter()
        .map(|(place, trouble)| Alone::of(&place.socket, trouble.cause, &pages, now));
    Ok(Heard {
        alone: alone.collect(),
        silent: without,
    })
}

impl Alone {
    /// What those of `pages` say whose control plane is the one at `socket`.
    fn of(socket: &Path, cause: Cause, pages: &[(String, Page)], now: i64) -> Option<Self> {
        let place = resolved(socket);
        let follows = |(_, page): &&(String, Page)| resolved(&page.socket) == place;
        let pages: Vec<_> = pages.iter().filter(follows).collect();
        // Those that the control plane has to renew are those it is missed for.
        let first = |(_, page): &&&(String, Page)| {
            (
                !page.is_certificate_from_control,
                page.certificate_not_after,
            )
        };
        let (_, first) = pages.iter().min_by_key(first)?;
        Some(Self {
            cluster: first.cluster.clone(),
            control_plane: cause.into(),
            is_connected: pages.iter().any(|(_, page)| page.connected),
            socket: socket.to_owned(),
            gateways: pages.iter().map(|(admin, _)| admin.clone()).collect(),
            certificate_not_after: first.certificate_not_after,
            certificate_left_s: first.certificate_not_after - now,
            is_certificate_from_control: first.is_certificate_from_control,
        })
    }

    /// The same without what moves all the time.
    pub(super) fn settled(mut self) -> Self {
        self.certificate_left_s = self.certificate_left_s.signum();
        self
    }

    /// For how long its certificates do without the control plane, who says so, and what to do.
    pub(super) fn lines(&self, style: Style) -> String {
        let (mark, certificates) = self.words();
        let (control, remedy) = self.about_control();
        let gateways = plain(&self.gateways.join(", "));
        format!(
            "{} {control}; {certificates}\n    seen  by gateway {gateways}\n    do    {remedy}\n",
            style.mark(mark)
        )
    }

    /// How the control plane is, and what to do.
    const fn about_control(&self) -> (&'static str, &'static str) {
        match (self.control_plane, self.is_connected) {
            (Absence::Unreachable, false) => (
                "control plane unreachable",
                "start the control plane; until then nothing changes, and open connections go on",
            ),
            (Absence::Unreachable, true) => (
                "control plane does not answer here, but its gateways are connected to it",
                "ask again with a longer --timeout, and look into the log of the control plane",
            ),
            (Absence::Forbidden, true) => (
                "control plane runs, but this user may not ask it",
                "ask as the user that it runs as: only who owns its socket may open it",
            ),
            (Absence::Forbidden, false) => (
                "this user may not ask the control plane, and its gateways do not reach it",
                "ask as the user that it runs as, and start it unless it runs",
            ),
        }
    }

    fn words(&self) -> (Mark, String) {
        if !self.is_certificate_from_control {
            return (
                Mark::Warning,
                "certificates are renewed without it".to_owned(),
            );
        }
        match self.certificate_left_s {
            _ if self.certificate_not_after == 0 => (
                Mark::Bad,
                "no certificate yet, so that no peer can be reached".to_owned(),
            ),
            left @ 1.. => (
                Mark::Warning,
                format!("certificates good for {}", span(left)),
            ),
            left => {
                let since = span(left.saturating_neg());
                let words = format!(
                    "certificates expired {since} ago: no new connection reaches a peer (CRN041)"
                );
                (Mark::Bad, words)
            }
        }
    }
}

/// Seconds in the two largest units that say something.
fn span(seconds: i64) -> String {
    match seconds {
        DAY_S.. => format!("{} d {} h", seconds / DAY_S, seconds % DAY_S / HOUR_S),
        HOUR_S.. => format!("{} h {} min", seconds / HOUR_S, seconds % HOUR_S / MINUTE_S),
        MINUTE_S.. => format!("{} min {} s", seconds / MINUTE_S, seconds % MINUTE_S),
        _ => format!("{seconds} s"),
    }
}

/// One path for one socket, however it is written. The socket itself may be gone.
fn resolved(socket: &Path) -> PathBuf {
    let absolute = std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned());
    let (Some(folder), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return absolute;
    };
    fs::canonicalize(folder).map_or_else(|_| absolute.clone(), |folder| folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_900_000_000;

    fn page(socket: &str, not_after: i64, from_control: bool) -> Page {
        Page {
            cluster: "east".to_owned(),
            socket: socket.into(),
            connected: false,
            certificate_not_after: not_after,
            is_certificate_from_control: from_control,
        }
    }

    fn words(not_after: i64, from_control: bool) -> String {
        let pages = [(ADMIN.to_owned(), page("/c.sock", not_after, from_control))];
        let alone = Alone::of(Path::new("/c.sock"), Cause::Other, &pages, NOW).unwrap();
        alone.words().1
    }

    #[test]
    fn it_is_told_how_long_certificates_are_good_for() {
        let expired = "ago: no new connection reaches a peer (CRN041)";
        for (left, told) in [
            (42_720, "certificates good for 11 h 52 min".to_owned()),
            (2 * DAY_S + 1, "certificates good for 2 d 0 h".to_owned()),
            (61, "certificates good for 1 min 1 s".to_owned()),
            (1, "certificates good for 1 s".to_owned()),
            (0, format!("certificates expired 0 s {expired}")),
            (-180, format!("certificates expired 3 min 0 s {expired}")),
        ] {
            assert_eq!(words(NOW + left, true), told);
        }
        assert_eq!(
            words(0, true),
            "no certificate yet, so that no peer can be reached"
        );
        assert_eq!(words(NOW - 1, false), "certificates are renewed without it");
    }

    #[test]
    fn gateways_of_other_control_planes_do_not_count_and_the_first_to_expire_does() {
        let pages = [
            ("a:1".to_owned(), page("/other.sock", NOW + 1, true)),
            ("b:1".to_owned(), page("/c.sock", NOW + 9, true)),
            ("c:1".to_owned(), page("/c.sock", NOW + 5, true)),
            ("d:1".to_owned(), page("/./c.sock", NOW + 2, false)),
        ];
        let alone = Alone::of(Path::new("/c.sock"), Cause::Other, &pages, NOW).unwrap();
        assert_eq!(alone.certificate_left_s, 5);
        assert_eq!(alone.gateways, ["b:1", "c:1", "d:1"]);
        assert_eq!(
            Alone::of(Path::new("/d.sock"), Cause::Other, &pages, NOW),
            None
        );
    }

    #[test]
    fn one_that_this_user_may_not_ask_is_told_from_one_that_does_not_run() {
        let told = |cause, connected| {
            let page = Page {
                connected,
                ..page("/c.sock", NOW + 60, true)
            };
            let pages = [(ADMIN.to_owned(), page)];
            let alone = Alone::of(Path::new("/c.sock"), cause, &pages, NOW).unwrap();
            alone.about_control()
        };
        let (seen, remedy) = told(Cause::Forbidden, true);
        assert_eq!(seen, "control plane runs, but this user may not ask it");
        assert!(remedy.starts_with("ask as the user") && !remedy.contains("start"));
        assert!(
            told(Cause::Other, false)
                .1
                .starts_with("start the control plane")
        );
        assert!(!told(Cause::Other, true).1.contains("start"));
        assert!(told(Cause::Forbidden, false).1.contains("start it unless"));
    }

    #[test]
    fn a_second_less_is_no_change_but_the_end_is() {
        let at = |now| {
            let pages = [(ADMIN.to_owned(), page("/c.sock", NOW, true))];
            Alone::of(Path::new("/c.sock"), Cause::Other, &pages, now)
                .unwrap()
                .settled()
        };
        assert_eq!(at(NOW - 60), at(NOW - 59));
        assert_ne!(at(NOW - 1), at(NOW + 1));
    }
}
