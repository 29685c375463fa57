//! `corinth status`: clusters, their links and what an operator should know, on one screen.
//!
//! It always prints what it knows: a control plane that does not answer is a row, not the end.

use std::{fmt, time::Duration};

use corinth_api::wire::admin::status_request::Kind;
use corinth_daemon::signals::Signals;
use serde::Serialize;

use self::alone::{Absence, Alone};
use crate::{
    args::StatusArgs,
    control::{Place, Status, ask_each, places},
    exit::Exit,
    output::{Cell, Format, Item, Listing, OutputArgs, table},
    run,
    terminal::{Mark, Style, Terminal, plain, repainted},
    trouble::Trouble,
};

mod alone;

const CLUSTER_HEADERS: &[&str] = &[
    "CLUSTER",
    "CONTROL PLANE",
    "SYNCED",
    "EXPORTS",
    "IMPORTS",
    "ROUTES",
    "REVISION",
    "VERSION",
];
const LINK_HEADERS: &[&str] = &[
    "LINK", "MODE", "TUNNEL", "RTT", "PEERING", "IMPORTS", "EXPORTS",
];

impl Item for Status {
    const KIND: &'static str = "ClusterStatus";
    const HEADERS: &'static [&'static str] = CLUSTER_HEADERS;

    fn rows(&self, style: Style) -> Vec<Vec<Cell>> {
        let consumers = self.consumers.iter();
        let synced = consumers.filter(|consumer| consumer.is_synced(self.revision));
        vec![vec![
            Cell::plain(&self.cluster),
            Cell::marked(style, Mark::Good, "answers"),
            Cell::plain(format!("{}/{}", synced.count(), self.consumers.len())),
            Cell::plain(self.exports),
            Cell::plain(self.imports),
            Cell::plain(self.routes),
            Cell::plain(self.revision),
            Cell::plain(&self.version),
        ]]
    }

    fn name(&self) -> String {
        format!("cluster/{}", self.cluster)
    }
}

/// One cluster in a list.
#[derive(Serialize)]
#[serde(untagged)]
enum Row {
    Answered(Status),
    Alone(Alone),
}

impl Item for Row {
    const KIND: &'static str = Status::KIND;
    const HEADERS: &'static [&'static str] = CLUSTER_HEADERS;

    fn rows(&self, style: Style) -> Vec<Vec<Cell>> {
        match self {
            Self::Answered(status) => status.rows(style),
            Self::Alone(alone) => vec![silent_row(&alone.cluster, alone.control_plane, style)],
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Answered(status) => status.name(),
            Self::Alone(alone) => format!("cluster/{}", alone.cluster),
        }
    }
}

/// The row of a control plane that does not answer.
fn silent_row(name: impl fmt::Display, why: Absence, style: Style) -> Vec<Cell> {
    let mut row = vec![
        Cell::plain(name),
        Cell::marked(style, Mark::Bad, why.word()),
    ];
    row.resize(CLUSTER_HEADERS.len(), Cell::plain("-"));
    row
}

/// How often is looked whether anything has changed.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// What all that were asked said, or why they did not.
struct Answers {
    answered: Vec<Status>,
    silent: Vec<Silent>,
    /// Gateways that were to be asked in place of silent control planes, and are silent too.
    gateways: Vec<Trouble>,
}

/// A control plane that does not answer.
struct Silent {
    place: Place,
    trouble: Trouble,
    /// What its gateways say.
    alone: Option<Alone>,
}

/// The same, as it is shown.
struct SilentRow {
    name: String,
    why: Absence,
    alone: Option<Alone>,
}

pub(crate) fn status(terminal: &Terminal, args: &StatusArgs) -> Result<Exit, Trouble> {
    let places = places(&args.controls)?;
    if args.watch {
        return watch(terminal, &places, args);
    }
    let answers = Answers::ask(&places, args)?;
    if answers.knows_nothing() {
        let first = answers.silent.into_iter().next();
        let first = first.map(|silent| silent.trouble);
        return Err(first.unwrap_or_else(|| Trouble::internal("nobody was asked", "no place")));
    }
    let exit = match (answers.answered.is_empty(), answers.silent.is_empty()) {
        (true, _) => Exit::Unreachable,
        (false, true) => Exit::Done,
        (false, false) => Exit::Partial,
    };
    terminal.print(&answers.text(terminal.stdout, args.output)?)?;
    answers.complain(terminal);
    Ok(exit)
}

/// Until interrupted, or until nobody reads any more. Those who do not answer are waited for.
fn watch(terminal: &Terminal, places: &[Place], args: &StatusArgs) -> Result<Exit, Trouble> {
    let repaints = args.output.output == Format::Table && terminal.can_repaint();
    let runtime = run::runtime()?;
    let mut signals = runtime
        .block_on(async { Signals::listen() })
        .map_err(|error| Trouble::internal("signals cannot be received", error))?;
    let mut seen = None;
    loop {
        let answers = Answers::ask(places, args)?;
        let state = answers.state();
        // On a screen, round-trip times may move as well.
        if repaints || seen.as_ref() != Some(&state) {
            let text = answers.text(terminal.stdout, args.output)?;
            let text = match (repaints, &seen) {
                (true, _) => repainted(&text),
                (false, Some(_)) if args.output.output == Format::Table => format!("\n{text}"),
                (false, _) => text,
            };
            if !terminal.print_on(&text)? {
                return Ok(Exit::Done);
            }
            answers.complain(terminal);
        }
        seen = Some(state);
        let is_interrupted = runtime.block_on(async {
            tokio::select! {
                () = tokio::time::sleep(WATCH_EVERY) => false,
                _ = signals.recv() => true,
            }
        });
        if is_interrupted {
            return Ok(Exit::Interrupted);
        }
    }
}

impl Answers {
    fn ask(places: &[Place], args: &StatusArgs) -> Result<Self, Trouble> {
        let asked = ask_each(
            places.to_vec(),
            args.controls.timeout,
            |control| async move { control.ask::<Status>(Kind::Status).await },
        )?;
        let (mut answered, mut silent) = (Vec::new(), Vec::new());
        for (place, answer) in asked {
            match answer {
                Ok(status) => answered.push(status),
                Err(trouble) => silent.push((place, trouble)),
            }
        }
        let heard = alone::ask(&silent, args)?;
        let silent = silent.into_iter().zip(heard.alone);
        let silent = silent.map(|((place, trouble), alone)| Silent {
            place,
            trouble,
            alone,
        });
        Ok(Self {
            answered,
            silent: silent.collect(),
            gateways: heard.silent,
        })
    }

    /// Neither a control plane nor a gateway has said anything.
    fn knows_nothing(&self) -> bool {
        self.answered.is_empty() && self.silent.iter().all(|silent| silent.alone.is_none())
    }

    fn text(&self, style: Style, output: OutputArgs) -> Result<String, Trouble> {
        if output.output == Format::Table {
            return Ok(screen(
                &self.answered,
                &self.silent_rows(),
                output.no_headers,
                style,
            ));
        }
        let errors = self
            .troubles()
            .map(|trouble| format!("{}: {}", trouble.what, trouble.why));
        let answered = self.answered.iter().cloned().map(Row::Answered);
        let alone = self.silent.iter().filter_map(|silent| silent.alone.clone());
        let listing = Listing {
            items: answered.chain(alone.map(Row::Alone)).collect(),
            errors: errors.collect(),
        };
        listing.text(style, output)
    }

    /// Why something is missing.
    fn troubles(&self) -> impl Iterator<Item = &Trouble> {
        let planes = self.silent.iter().map(|silent| &silent.trouble);
        planes.chain(&self.gateways)
    }

    /// Who does not answer, and what is known all the same.
    fn silent_rows(&self) -> Vec<SilentRow> {
        let row = |silent: &Silent| SilentRow {
            name: match &silent.alone {
                Some(alone) => alone.cluster.clone(),
                None => silent.place.to_string(),
            },
            why: silent.trouble.cause.into(),
            alone: silent.alone.clone(),
        };
        self.silent.iter().map(row).collect()
    }

    /// What counts as a change: all that a screen shows but round-trip times and what is left of a certificate, which
    /// move all the time.
    fn state(&self) -> String {
        let mut answered = self.answered.clone();
        for link in answered.iter_mut().flat_map(|status| &mut status.links) {
            link.rtt_us = None;
        }
        let style = Style {
            is_coloured: false,
            is_utf8: false,
        };
        let silent = self.silent_rows().into_iter();
        let silent: Vec<_> = silent
            .map(|row| SilentRow {
                alone: row.alone.map(Alone::settled),
                ..row
            })
            .collect();
        screen(&answered, &silent, true, style)
    }

    fn complain(&self, terminal: &Terminal) {
        for trouble in self.troubles() {
            terminal.complain(trouble);
        }
        if !self.silent.is_empty() {
            terminal.note(&format!(
                "{} of {} control planes did not answer\n",
                self.silent.len(),
                self.silent.len() + self.answered.len()
            ));
        }
    }
}

fn screen(answered: &[Status], silent: &[SilentRow], no_headers: bool, style: Style) -> String {
    let headers = |headers: &'static [&'static str]| if no_headers { &[] } else { headers };
    let mut clusters: Vec<_> = answered
        .iter()
        .flat_map(|status| status.rows(style))
        .collect();
    let silent_rows = silent.iter();
    clusters.extend(silent_rows.map(|row| silent_row(&row.name, row.why, style)));
    let mut screen = table(headers(CLUSTER_HEADERS), &clusters, style);

    let links: Vec<_> = answered
        .iter()
        .flat_map(|status| status.links.iter().map(move |link| (status, link)))
        .map(|(status, link)| {
            vec![
                Cell::plain(format!("{} - {}", status.cluster, link.cluster)),
                link.mode_cell(style),
                link.tunnel_cell(style),
                Cell::optional(link.rtt()),
                link.peering_cell(style),
                Cell::plain(link.imports),
                Cell::plain(link.exports),
            ]
        })
        .collect();
    if !links.is_empty() {
        screen.push('\n');
        screen.push_str(&table(headers(LINK_HEADERS), &links, style));
    }
    for status in answered
        .iter()
        .filter(|status| !status.conditions.is_empty())
    {
        screen.push_str(&format!("\n{}\n", style.strong(&plain(&status.cluster))));
        for condition in &status.conditions {
            screen.push_str(&condition.lines(style));
        }
    }
    for alone in silent.iter().filter_map(|row| row.alone.as_ref()) {
        screen.push_str(&format!("\n{}\n", style.strong(&plain(&alone.cluster))));
        screen.push_str(&alone.lines(style));
    }
    screen
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn linked(tunnel: &str, rtt_us: u64) -> Answers {
        let status = json!({
            "cluster": "east", "trustDomain": "east.corinth.internal", "instance": "00", "version": "1.7",
            "revision": 7, "exports": 1, "imports": 1, "routes": 1, "consumers": [],
            "links": [{
                "cluster": "west", "trustDomain": "west.corinth.internal", "mode": "active", "tunnel": tunnel,
                "rttUs": rtt_us, "peering": "told", "addresses": [], "accepted": [], "imports": 1, "stale": 0,
                "exports": 1, "relation": {},
            }],
            "conditions": [],
        });
        Answers {
            answered: vec![serde_json::from_value(status).unwrap()],
            silent: Vec::new(),
            gateways: Vec::new(),
        }
    }

    #[test]
    fn a_round_trip_that_takes_longer_is_no_change_but_a_tunnel_that_is_down_is() {
        let before = linked("up", 31_000).state();
        assert_eq!(linked("up", 32_000).state(), before);
        assert_ne!(linked("down", 31_000).state(), before);
    }
}
