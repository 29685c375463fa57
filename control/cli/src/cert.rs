//! `corinth cert`: certificates, how long they hold, and the change of our own root.

use corinth_api::wire::admin::{
    RotateRootRequest, RotateRootResponse, rotate_root_request::Step, rotate_root_response::Phase,
    status_request::Kind,
};
use jiff::Timestamp;

use crate::{
    args::{CertArgs, CertCommand, ControlArgs, RootStep, ShowArgs},
    control::{Certificate, Client, act, place},
    exit::Exit,
    output::{Cell, Item, Listing},
    terminal::{Mark, Style, Terminal, plain},
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
        let now = Timestamp::now().as_second();
        let (mark, state) = match self.not_after > now {
            true if self.is_expiring(now) => (Mark::Warning, "expiring"),
            true => (Mark::Good, "valid"),
            false => (Mark::Bad, "expired"),
        };
        let state = Cell::marked(style, mark, state);
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
    match &args.command {
        CertCommand::List(args) => list(terminal, args),
        CertCommand::RotateRoot {
            step,
            force,
            control,
        } => rotate_root(terminal, *step, *force, control),
    }
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

fn rotate_root(
    terminal: &Terminal,
    step: RootStep,
    force: bool,
    args: &ControlArgs,
) -> Result<Exit, Trouble> {
    if force && step != RootStep::Switch {
        return Err(Trouble::new(
            Exit::Usage,
            "nothing was done",
            "only switch can be forced: an old root goes when nothing uses it",
            "leave out --force",
        ));
    }
    let (asked, failed) = match step {
        RootStep::Status => (Step::Look, "it could not be looked up"),
        RootStep::Begin => (Step::Begin, "no new root was made"),
        RootStep::Switch => (Step::Switch, "the old root goes on issuing"),
        RootStep::Finish => (Step::Finish, "the old root stays"),
    };
    let request = RotateRootRequest {
        step: asked.into(),
        force,
    };
    let stand = act(place(args)?, args.timeout, |control| async move {
        let change = |mut client: Client| async move { client.rotate_root(request).await };
        control.change(failed, change).await
    })?;
    terminal.print(&stood(&stand))?;
    Ok(Exit::Done)
}

/// How far a change of root has come, what is waited for, and what comes next.
fn stood(stand: &RotateRootResponse) -> String {
    let (phase, next) = match stand.phase() {
        Phase::Unspecified | Phase::Single => (
            "one root",
            "corinth cert rotate-root begin, to change it\n".to_owned(),
        ),
        Phase::Announced => (
            "the new root is announced, the old one issues",
            next(&stand.lacking, "not held yet by", "switch"),
        ),
        Phase::Issuing => (
            "the new root issues, the old one is still believed",
            next(&stand.uses, "the old root is used by", "finish"),
        ),
    };
    format!("{phase} (sequence {})\n{next}", stand.sequence)
}

fn next(waited_for: &[String], why: &str, step: &str) -> String {
    let lines = waited_for
        .iter()
        .map(|one| format!("{why} {}\n", plain(one)));
    let step = match waited_for {
        [] => format!("next: corinth cert rotate-root {step}\n"),
        [..] => format!("then: corinth cert rotate-root {step}\n"),
    };
    lines.chain([step]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stand(phase: Phase, lacking: &[&str], uses: &[&str]) -> String {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        stood(&RotateRootResponse {
            phase: phase.into(),
            sequence: 3,
            lacking: texts(lacking),
            uses: texts(uses),
        })
    }

    #[test]
    fn each_phase_says_what_is_waited_for_and_what_comes_next() {
        assert_eq!(
            stand(Phase::Single, &[], &[]),
            "one root (sequence 3)\ncorinth cert rotate-root begin, to change it\n"
        );
        assert_eq!(
            stand(Phase::Announced, &["west"], &["this cluster"]),
            "the new root is announced, the old one issues (sequence 3)\n\
             not held yet by west\nthen: corinth cert rotate-root switch\n"
        );
        assert_eq!(
            stand(Phase::Announced, &[], &["this cluster"]),
            "the new root is announced, the old one issues (sequence 3)\n\
             next: corinth cert rotate-root switch\n"
        );
        assert_eq!(
            stand(Phase::Issuing, &[], &["certificates"]),
            "the new root issues, the old one is still believed (sequence 3)\n\
             the old root is used by certificates\nthen: corinth cert rotate-root finish\n"
        );
    }
}
