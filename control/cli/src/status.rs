//! `corinth status`: clusters, their links and what an operator should know, on one screen.
//!
//! It always prints what it knows: a control plane that does not answer is a row, not the end.

use corinth_api::wire::admin::status_request::Kind;

use crate::{
    args::StatusArgs,
    control::{Place, Status, ask_each, places},
    exit::Exit,
    output::{Cell, Format, Item, Listing, table},
    terminal::{Mark, Style, Terminal, plain},
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

pub(crate) fn status(terminal: &Terminal, args: &StatusArgs) -> Result<Exit, Trouble> {
    let answers = ask_each(
        places(&args.controls)?,
        args.controls.timeout,
        |control| async move { control.ask::<Status>(Kind::Status).await },
    )?;
    let asked = answers.len();
    let mut answered = Vec::new();
    let mut silent = Vec::new();
    for (place, answer) in answers {
        match answer {
            Ok(status) => answered.push(status),
            Err(trouble) => silent.push((place, trouble)),
        }
    }
    if answered.is_empty() {
        let first = silent.into_iter().next().map(|(_, trouble)| trouble);
        return Err(first.unwrap_or_else(|| Trouble::internal("nobody was asked", "no place")));
    }
    let exit = if silent.is_empty() {
        Exit::Done
    } else {
        Exit::Partial
    };
    if args.output.output == Format::Table {
        let style = terminal.stdout;
        terminal.print(&screen(&answered, &silent, args.output.no_headers, style))?;
    } else {
        let errors = silent
            .iter()
            .map(|(_, trouble)| format!("{}: {}", trouble.what, trouble.why));
        let listing = Listing {
            items: answered,
            errors: errors.collect(),
        };
        listing.print(terminal, args.output)?;
    }
    for (_, trouble) in &silent {
        terminal.complain(trouble);
    }
    if exit == Exit::Partial {
        terminal.note(&format!(
            "{} of {asked} control planes did not answer\n",
            silent.len()
        ));
    }
    Ok(exit)
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
