//! `corinth run`: a gateway in this process, and its control plane if it can be linked.

use corinth_gateway::run::{RunError, run_beside};

use crate::{args::RunArgs, exit::Exit, node::Node, trouble::Trouble, version::BUILD};

pub(crate) fn run(args: &RunArgs) -> Result<Exit, Trouble> {
    let ended = runtime()?.block_on(run_beside(&args.config, BUILD, &mut Node::default()));
    let Err(error) = ended else {
        return Ok(Exit::Done);
    };
    let (exit, remedy) = match &error {
        RunError::Read { .. } => (
            Exit::Unreachable,
            "check the path and who may read the file; `corinth config example` prints a beginning",
        ),
        RunError::Mistakes(_) => (
            Exit::Found,
            "correct the file; `corinth config validate FILE` tells whether nothing is left",
        ),
        RunError::Start(_)
        | RunError::Beside(_)
        | RunError::Logging(_)
        | RunError::Admin(_)
        | RunError::Metrics(_)
        | RunError::Signals(_) => (
            Exit::Internal,
            "mend what the line above names, then start it again",
        ),
    };
    Err(Trouble::new(
        exit,
        format!("the gateway of {} did not run", args.config.display()),
        error,
        remedy,
    ))
}

/// What a command does its waiting on.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Trouble> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Trouble::internal("the command could not start", error))
}
