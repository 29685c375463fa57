//! `corinth path`: the way of a call, step by step, and where it is blocked.
//!
//! ```text
//! control planes ── snapshots ── walk ──> steps ──> table, exit code
//! ```

mod walk;

#[cfg(test)]
mod tests;

use corinth_api::wire::admin::status_request::Kind;

use self::walk::{Snapshot, Step, StepState, Walk, walk};
use crate::{
    args::PathArgs,
    control::{Control, ask_each, places},
    exit::Exit,
    output::{Cell, Format, Item, Listing},
    terminal::{Mark, Style, Terminal},
    trouble::Trouble,
};

impl Item for Step {
    const KIND: &'static str = "PathSteps";
    const HEADERS: &'static [&'static str] = &["STEP", "BY", "STATE", "FACT", "DECIDED BY"];

    fn rows(&self, style: Style) -> Vec<Vec<Cell>> {
        let mark = match self.state {
            StepState::Ok => Mark::Good,
            StepState::Warning => Mark::Warning,
            StepState::Blocked => Mark::Bad,
            StepState::Unknown => Mark::Skipped,
        };
        vec![vec![
            Cell::plain(self.step),
            Cell::optional(self.candidate.as_ref()),
            Cell::marked(style, mark, self.state.word()),
            Cell::plain(&self.fact),
            Cell::plain(&self.object),
        ]]
    }

    fn name(&self) -> String {
        self.step.to_owned()
    }
}

pub(crate) fn path(terminal: &Terminal, args: &PathArgs) -> Result<Exit, Trouble> {
    let answers = ask_each(places(&args.controls)?, args.controls.timeout, snapshot)?;
    let mut snapshots = Vec::new();
    let mut silent = Vec::new();
    for (_, answer) in answers {
        match answer {
            Ok(snapshot) => snapshots.push(snapshot),
            Err(trouble) => silent.push(trouble),
        }
    }
    let source = args.source.split('/').next().unwrap_or_default();
    let Some(near) = snapshots
        .iter()
        .position(|snapshot| snapshot.status.cluster == source)
    else {
        let first = silent.into_iter().next();
        return Err(first.unwrap_or_else(|| no_source(source, &snapshots)));
    };
    let near = snapshots.swap_remove(near);
    let walked = walk(&near, &snapshots, &args.destination)?;

    let result = walked.result();
    let mut exit = if walked.is_reachable {
        Exit::Done
    } else {
        Exit::Found
    };
    if exit == Exit::Done && !silent.is_empty() {
        exit = Exit::Partial;
    }
    let listing = Listing {
        items: walked.steps,
        errors: silent
            .iter()
            .map(|trouble| format!("{}: {}", trouble.what, trouble.why))
            .collect(),
    };
    listing.print(terminal, args.output)?;
    if args.output.output == Format::Table {
        terminal.print(&format!("result: {result}\n"))?;
    }
    for trouble in &silent {
        terminal.complain(trouble);
    }
    Ok(exit)
}

async fn snapshot(control: Control) -> Result<Snapshot, Trouble> {
    let (status, routes, imports, exports) = tokio::try_join!(
        control.ask(Kind::Status),
        control.ask(Kind::Routes),
        control.ask(Kind::Imports),
        control.ask(Kind::Exports),
    )?;
    Ok(Snapshot {
        status,
        routes,
        imports,
        exports,
    })
}

fn no_source(source: &str, snapshots: &[Snapshot]) -> Trouble {
    let answered: Vec<_> = snapshots
        .iter()
        .map(|snapshot| snapshot.status.cluster.as_str())
        .collect();
    Trouble::new(
        Exit::Usage,
        format!("there is no way to walk from {}", source.escape_debug()),
        format!(
            "the control planes that were asked are of: {}",
            answered.join(", ")
        ),
        format!(
            "name the control plane of {} with --config or --control",
            source.escape_debug()
        ),
    )
}

impl Walk {
    /// One sentence.
    fn result(&self) -> String {
        if self.is_reachable {
            return if self.is_certain {
                "reachable".to_owned()
            } else {
                "reachable as far as can be seen from here".to_owned()
            };
        }
        let blocked = self
            .steps
            .iter()
            .find(|step| step.state == StepState::Blocked);
        blocked.map_or_else(
            || "blocked".to_owned(),
            |step| format!("blocked at {}: {}", step.step, step.fact),
        )
    }
}
