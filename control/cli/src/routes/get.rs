//! `corinth routes get`: a route as the control plane made it, and why it is as it is.

use corinth_api::wire::admin::status_request::Kind;
use corinth_model::Refusal;
use serde::Serialize;

use crate::{
    args::ShowArgs,
    control::{Route, act, place},
    exit::Exit,
    output::{Cell, Item, Listing},
    terminal::{Mark, Style, Terminal},
    trouble::Trouble,
};

/// A route, shown with or without the reasons for its candidates.
#[derive(Serialize)]
#[serde(transparent)]
struct Shown<const WHY: bool>(Route);

impl<const WHY: bool> Item for Shown<WHY> {
    const KIND: &'static str = "ControlRoutes";
    const HEADERS: &'static [&'static str] = if WHY {
        &[
            "ROUTE",
            "IMPORT PORT",
            "CANDIDATE",
            "PRIORITY",
            "WEIGHT",
            "WHY",
        ]
    } else {
        &["ROUTE", "IMPORT PORT", "CANDIDATE", "PRIORITY", "WEIGHT"]
    };

    fn rows(&self, style: Style) -> Vec<Vec<Cell>> {
        let route = &self.0;
        let mut rows: Vec<_> = route
            .candidates
            .iter()
            .enumerate()
            .map(|(number, candidate)| {
                let mut row = vec![
                    Cell::plain(""),
                    Cell::plain(""),
                    Cell::plain(&candidate.target),
                    Cell::plain(candidate.priority),
                    Cell::plain(candidate.weight),
                ];
                if WHY {
                    row.push(Cell::optional(route.why.get(number)));
                }
                row
            })
            .collect();
        if rows.is_empty() {
            let nobody = Cell::marked(style, Mark::Bad, "no candidate");
            rows.push(vec![Cell::plain(""), Cell::plain(""), nobody]);
        }
        if let Some([name, port, ..]) = rows.first_mut().map(Vec::as_mut_slice) {
            *name = Cell::plain(&route.name);
            *port = Cell::optional(route.import_port);
        }
        rows
    }

    fn name(&self) -> String {
        format!("route/{}", self.0.name)
    }
}

pub(super) fn get(
    terminal: &Terminal,
    name: &str,
    why: bool,
    args: &ShowArgs,
) -> Result<Exit, Trouble> {
    let routes: Vec<Route> = act(
        place(&args.control)?,
        args.control.timeout,
        |control| async move { control.ask_about(Kind::Routes, name).await },
    )?;
    if routes.is_empty() {
        return Err(Trouble::new(
            Exit::Found,
            format!("there is no route to {}", name.escape_debug()),
            format!(
                "no service or route of this name is usable here ({})",
                Refusal::UnknownRoute.code()
            ),
            "corinth imports lists what peers offer; corinth path CLUSTER NAME says what is in the way",
        ));
    }
    if why {
        let routes = routes.into_iter().map(Shown::<true>).collect();
        Listing::whole(routes).print(terminal, args.output)?;
    } else {
        let routes = routes.into_iter().map(Shown::<false>).collect();
        Listing::whole(routes).print(terminal, args.output)?;
    }
    Ok(Exit::Done)
}
