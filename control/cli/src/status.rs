//! `corinth status`: clusters, their links and what an operator should know, on one screen.
//!
//! It always prints what it knows: a control plane that does not answer is a row, not the end.

use std::time::Duration;

use corinth_api::wire::admin::status_request::Kind;
use corinth_daemon::signals::Signals;

use crate::{
    args::StatusArgs,
    control::{Place, Status, ask_each, places},
    exit::Exit,
    output::{Cell, Format, Item, Listing, OutputArgs, table},
    run,
    terminal::{Mark, Style, Terminal, plain, repainted},
    trouble::Trouble,
};

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

/// How often is looked whether anything has changed.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// What all that were asked said, or why they did not.
struct Answers {
    answered: Vec<Status>,
    silent: Vec<(Place, Trouble)>,
}

pub(crate) fn status(terminal: &Terminal, args: &StatusArgs) -> Result<Exit, Trouble> {
    let places = places(&args.controls)?;
    if args.watch {
        return watch(terminal, &places, args);
    }
    let answers = Answers::ask(&places, args)?;
    if answers.answered.is_empty() {
        let first = answers
            .silent
            .into_iter()
            .next()
            .map(|(_, trouble)| trouble);
        return Err(first.unwrap_or_else(|| Trouble::internal("nobody was asked", "no place")));
    }
    let exit = if answers.silent.is_empty() {
        Exit::Done
    } else {
        Exit::Partial
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
        let mut answers = Self {
            answered: Vec::new(),
            silent: Vec::new(),
        };
        for (place, answer) in asked {
            match answer {
                Ok(status) => answers.answered.push(status),
                Err(trouble) => answers.silent.push((place, trouble)),
            }
        }
        Ok(answers)
    }

    fn text(&self, style: Style, output: OutputArgs) -> Result<String, Trouble> {
        if output.output == Format::Table {
            return Ok(screen(
                &self.answered,
                &self.silent,
                output.no_headers,
                style,
            ));
        }
        let errors = self
            .silent
            .iter()
            .map(|(_, trouble)| format!("{}: {}", trouble.what, trouble.why));
        let listing = Listing {
            items: self.answered.clone(),
            errors: errors.collect(),
        };
        listing.text(style, output)
    }

    /// What counts as a change: all that a screen shows but round-trip times, which move all the time.
    fn state(&self) -> String {
        let mut answered = self.answered.clone();
        for link in answered.iter_mut().flat_map(|status| &mut status.links) {
            link.rtt_us = None;
        }
        let style = Style {
            is_coloured: false,
            is_utf8: false,
        };
        screen(&answered, &self.silent, true, style)
    }

    fn complain(&self, terminal: &Terminal) {
        for (_, trouble) in &self.silent {
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

fn screen(
    answered: &[Status],
    silent: &[(Place, Trouble)],
    no_headers: bool,
    style: Style,
) -> String {
    let headers = |headers: &'static [&'static str]| if no_headers { &[] } else { headers };
    let mut clusters: Vec<_> = answered
        .iter()
        .flat_map(|status| status.rows(style))
        .collect();
    for (place, _) in silent {
        let mut row = vec![
            Cell::plain(place),
            Cell::marked(style, Mark::Bad, "no answer"),
        ];
        row.resize(CLUSTER_HEADERS.len(), Cell::plain("-"));
        clusters.push(row);
    }
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
        }
    }

    #[test]
    fn a_round_trip_that_takes_longer_is_no_change_but_a_tunnel_that_is_down_is() {
        let before = linked("up", 31_000).state();
        assert_eq!(linked("up", 32_000).state(), before);
        assert_ne!(linked("down", 31_000).state(), before);
    }
}
