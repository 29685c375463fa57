//! `corinth link list` and `link status`: the links as a control plane sees them.

use std::fmt::Write;

use corinth_api::wire::admin::status_request::Kind;
use corinth_model::{ClusterName, Condition as Known};

use crate::{
    args::ShowArgs,
    control::{Condition, Link, Status, act, place},
    exit::Exit,
    output::{Cell, Format, Item, Listing},
    terminal::{Mark, Style, Terminal, plain},
    trouble::Trouble,
};

impl Link {
    pub(crate) fn mode_cell(&self, style: Style) -> Cell {
        let mark = match self.mode.as_str() {
            "active" => Mark::Good,
            _ => Mark::Warning,
        };
        Cell::marked(style, mark, &self.mode)
    }

    pub(crate) fn tunnel_cell(&self, style: Style) -> Cell {
        Cell::marked(style, self.tunnel_mark(), &self.tunnel)
    }

    pub(crate) fn peering_cell(&self, style: Style) -> Cell {
        Cell::marked(style, self.peering_mark(), &self.peering)
    }

    fn tunnel_mark(&self) -> Mark {
        match self.tunnel.as_str() {
            "up" => Mark::Good,
            "draining" | "unknown" => Mark::Warning,
            _ => Mark::Bad,
        }
    }

    fn peering_mark(&self) -> Mark {
        match self.peering.as_str() {
            "told" => Mark::Good,
            "telling" => Mark::Warning,
            _ => Mark::Bad,
        }
    }
}

impl Item for Link {
    const KIND: &'static str = "ClusterLinks";
    const HEADERS: &'static [&'static str] = &[
        "PEER",
        "MODE",
        "TUNNEL",
        "TRANSPORT",
        "RTT",
        "PEERING",
        "IMPORTS",
        "STALE",
        "EXPORTS",
        "ACCEPTED",
    ];

    fn rows(&self, style: Style) -> Vec<Vec<Cell>> {
        let accepted = (!self.accepted.is_empty()).then(|| self.accepted.join(","));
        vec![vec![
            Cell::plain(&self.cluster),
            self.mode_cell(style),
            self.tunnel_cell(style),
            Cell::optional(self.carriage()),
            Cell::optional(self.rtt()),
            self.peering_cell(style),
            Cell::plain(self.imports),
            Cell::plain(self.stale),
            Cell::plain(self.exports),
            Cell::optional(accepted),
        ]]
    }

    fn name(&self) -> String {
        format!("link/{}", self.cluster)
    }
}

pub(super) fn list(terminal: &Terminal, args: &ShowArgs) -> Result<Exit, Trouble> {
    let links: Vec<Link> = act(
        place(&args.control)?,
        args.control.timeout,
        |control| async move { control.ask(Kind::Links).await },
    )?;
    if links.is_empty() {
        terminal.note("no links: corinth link token create begins one\n");
    }
    Listing::whole(links).print(terminal, args.output)?;
    Ok(Exit::Done)
}

pub(super) fn status(
    terminal: &Terminal,
    peer: Option<&ClusterName>,
    args: &ShowArgs,
) -> Result<Exit, Trouble> {
    let status: Status = act(
        place(&args.control)?,
        args.control.timeout,
        |control| async move { control.ask(Kind::Status).await },
    )?;
    let is_meant = |link: &Link| peer.is_none_or(|peer| link.cluster == peer.as_str());
    let links: Vec<_> = status.links.into_iter().filter(is_meant).collect();
    if let (true, Some(peer)) = (links.is_empty(), peer) {
        return Err(Trouble::new(
            Exit::Found,
            format!("no link with {peer} can be shown"),
            Known::LinkUnknown,
            Known::LinkUnknown.hint(),
        ));
    }
    if args.output.output != Format::Table {
        Listing::whole(links).print(terminal, args.output)?;
        return Ok(Exit::Done);
    }
    let style = terminal.stdout;
    let pages: Vec<_> = links
        .iter()
        .map(|link| page(link, &status.conditions, style))
        .collect();
    if pages.is_empty() {
        terminal.note("no links: corinth link token create begins one\n");
    }
    terminal.print(&pages.join("\n"))?;
    Ok(Exit::Done)
}

/// One link, as a person reads it.
fn page(link: &Link, conditions: &[Condition], style: Style) -> String {
    let or = |words: &[String], none: &str| {
        if words.is_empty() {
            none.to_owned()
        } else {
            plain(&words.join(", "))
        }
    };
    let rtt = link
        .rtt()
        .map_or_else(String::new, |rtt| format!(", {rtt}"));
    let mut page = format!(
        "{} ({})\n  mode      {}\n  tunnel    {} {}{rtt}\n  transport {}\n  peering   {} {}\n  dialled   {}\n  \
         accepted  {}\n  imports   {}, of them stale {}\n  exports   {}\n",
        style.strong(&plain(&link.cluster)),
        plain(&link.trust_domain),
        plain(&link.mode),
        style.mark(link.tunnel_mark()),
        plain(&link.tunnel),
        plain(&link.carriage().unwrap_or_else(|| "-".to_owned())),
        style.mark(link.peering_mark()),
        plain(&link.peering),
        or(&link.addresses, "nowhere: only the peer dials"),
        or(&link.accepted, "nothing"),
        link.imports,
        link.stale,
        link.exports,
    );
    for condition in conditions.iter().filter(|one| one.is_about(&link.cluster)) {
        page.push_str(&condition.lines(style));
    }
    page
}

impl Condition {
    /// Two lines: what it means, and what to do.
    pub(crate) fn lines(&self, style: Style) -> String {
        let mut lines = String::new();
        let subject = self.subject();
        let subject = if subject.is_empty() {
            subject
        } else {
            format!(" {}", plain(&subject))
        };
        let words = if self.words.is_empty() {
            String::new()
        } else {
            format!(": {}", plain(&self.words))
        };
        let _ = writeln!(
            lines,
            "{} {}{subject}: {}{words}\n    do    {}",
            style.mark(Mark::Warning),
            plain(&self.code),
            plain(&self.summary),
            plain(&self.hint)
        );
        lines
    }
}
