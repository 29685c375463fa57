//! `corinth routes`: the routes of a running gateway, and with `get` those the control plane made.

mod get;

use serde::{Deserialize, Serialize};

use crate::{
    admin,
    args::{RoutesArgs, RoutesCommand},
    exit::Exit,
    output::{Cell, Item, Listing},
    run,
    terminal::{Mark, Style, Terminal},
    trouble::Trouble,
};

/// One route, as the gateway shows it.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Route {
    name: String,
    protocol: String,
    import_port: Option<u16>,
    candidates: Vec<Candidate>,
}

#[derive(Deserialize, Serialize)]
struct Candidate {
    target: String,
    priority: u8,
    weight: u32,
    standing: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link: Option<String>,
}

impl Candidate {
    /// What is shown of it: the link first, because without one the standing does not matter.
    fn state(&self, style: Style) -> Cell {
        match (self.link.as_deref(), self.standing.as_str()) {
            (Some("down"), _) => Cell::marked(style, Mark::Bad, "link down"),
            (Some("draining"), _) => Cell::marked(style, Mark::Warning, "link draining"),
            (_, "serving") => Cell::marked(style, Mark::Good, "serving"),
            (_, "ejected") => Cell::marked(style, Mark::Bad, "ejected"),
            (_, other) => Cell::marked(style, Mark::Warning, other),
        }
    }
}

impl Item for Route {
    const KIND: &'static str = "Routes";
    const HEADERS: &'static [&'static str] = &[
        "ROUTE",
        "IMPORT PORT",
        "CANDIDATE",
        "STATE",
        "PRIORITY",
        "WEIGHT",
    ];

    fn rows(&self, style: Style) -> Vec<Vec<Cell>> {
        let mut rows: Vec<_> = self
            .candidates
            .iter()
            .map(|candidate| {
                vec![
                    Cell::plain(""),
                    Cell::plain(""),
                    Cell::plain(&candidate.target),
                    candidate.state(style),
                    Cell::plain(candidate.priority),
                    Cell::plain(candidate.weight),
                ]
            })
            .collect();
        if rows.is_empty() {
            let nobody = Cell::marked(style, Mark::Bad, "no candidate");
            rows.push(vec![
                Cell::plain(""),
                Cell::plain(""),
                Cell::plain("-"),
                nobody,
            ]);
        }
        if let Some(first) = rows.first_mut() {
            first[0] = Cell::plain(&self.name);
            first[1] = Cell::optional(self.import_port);
        }
        rows
    }

    fn name(&self) -> String {
        format!("route/{}", self.name)
    }
}

pub(crate) fn routes(terminal: &Terminal, args: &RoutesArgs) -> Result<Exit, Trouble> {
    if let Some(RoutesCommand::Get { name, why, show }) = &args.command {
        return get::get(terminal, name, *why, show);
    }
    let routes: Vec<Route> = run::runtime()?.block_on(admin::ask(&args.admin, "/routes"))?;
    if routes.is_empty() {
        terminal.note("no routes: this gateway imports nothing\n");
    }
    Listing::whole(routes).print(terminal, args.output)?;
    Ok(Exit::Done)
}
