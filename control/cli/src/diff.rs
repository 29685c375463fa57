//! `corinth diff`: which consumers have not taken the newest tables.

use corinth_api::wire::admin::status_request::Kind;
use serde::Serialize;

use crate::{
    args::ShowArgs,
    control::{Consumer, Status, act, place},
    exit::Exit,
    output::{Cell, Item, Listing},
    terminal::{Mark, Style, Terminal},
    trouble::Trouble,
};

/// A consumer beside the revision it should have.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Compared {
    wanted: u64,
    is_synced: bool,
    #[serde(flatten)]
    consumer: Consumer,
}

impl Item for Compared {
    const KIND: &'static str = "Consumers";
    const HEADERS: &'static [&'static str] =
        &["CONSUMER", "VERSION", "WANTED", "TOLD", "APPLIED", "STATE"];

    fn rows(&self, style: Style) -> Vec<Vec<Cell>> {
        let Consumer {
            version,
            told,
            applied,
            refused,
            ..
        } = &self.consumer;
        let state = match refused {
            Some((revision, why)) => {
                Cell::marked(style, Mark::Bad, &format!("REFUSED {revision}: {why}"))
            }
            None if self.is_synced => Cell::marked(style, Mark::Good, "SYNCED"),
            None => {
                let behind = self.wanted.saturating_sub(*applied);
                Cell::marked(style, Mark::Warning, &format!("BEHIND {behind}"))
            }
        };
        vec![vec![
            Cell::plain(self.name()),
            Cell::plain(version),
            Cell::plain(self.wanted),
            Cell::plain(told),
            Cell::plain(applied),
            state,
        ]]
    }

    fn name(&self) -> String {
        format!("{}/{}", self.consumer.role, self.consumer.slot)
    }
}

pub(crate) fn diff(terminal: &Terminal, args: &ShowArgs) -> Result<Exit, Trouble> {
    let status: Status = act(
        place(&args.control)?,
        args.control.timeout,
        |control| async move { control.ask(Kind::Status).await },
    )?;
    let wanted = status.revision;
    let compared = status.consumers.into_iter().map(|consumer| Compared {
        wanted,
        is_synced: consumer.is_synced(wanted),
        consumer,
    });
    let compared: Vec<_> = compared.collect();
    if compared.is_empty() {
        terminal.note("no consumers: no gateway follows this control plane\n");
    }
    let is_synced = compared.iter().all(|compared| compared.is_synced);
    Listing::whole(compared).print(terminal, args.output)?;
    Ok(if is_synced { Exit::Done } else { Exit::Found })
}
