//! `corinth cert`: certificates and how long they hold.

use corinth_api::wire::admin::status_request::Kind;
use jiff::Timestamp;

use crate::{
    args::{CertArgs, CertCommand, ShowArgs},
    control::{Certificate, act, place},
    exit::Exit,
    output::{Cell, Item, Listing},
    terminal::{Mark, Style, Terminal},
    trouble::Trouble,
};

impl Item for Certificate {
    const KIND: &'static str = "Certificates";
    const HEADERS: &'static [&'static str] = &[
        "HOLDER",
        "PEER",
        "STATE",
        "NOT AFTER",
        "SEQUENCE",
        "IDENTITY",
    ];

    fn rows(&self, style: Style) -> Vec<Vec<Cell>> {
        let state = if self.not_after > Timestamp::now().as_second() {
            Cell::marked(style, Mark::Good, "valid")
        } else {
            Cell::marked(style, Mark::Bad, "expired")
        };
        vec![vec![
            Cell::plain(&self.holder),
            Cell::optional(self.peer.as_ref()),
            state,
            Cell::optional(Timestamp::from_second(self.not_after).ok()),
            Cell::optional(self.sequence),
            Cell::optional(self.spiffe_id.as_ref()),
        ]]
    }

    fn name(&self) -> String {
        let whose = self.spiffe_id.as_ref().or(self.peer.as_ref());
        let whose = whose.map_or("-", String::as_str);
        format!("{}/{whose}", self.holder.replace(' ', "-"))
    }
}

pub(crate) fn cert(terminal: &Terminal, args: &CertArgs) -> Result<Exit, Trouble> {
    let CertCommand::List(args) = &args.command;
    list(terminal, args)
}

fn list(terminal: &Terminal, args: &ShowArgs) -> Result<Exit, Trouble> {
    let certificates: Vec<Certificate> = act(
        place(&args.control)?,
        args.control.timeout,
        |control| async move { control.ask(Kind::Certificates).await },
    )?;
    Listing::whole(certificates).print(terminal, args.output)?;
    Ok(Exit::Done)
}
