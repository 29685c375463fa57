//! `corinth run`: the gateway itself, in this process.

use corinth_gateway::run::RunError;

use crate::{args::RunArgs, exit::Exit, trouble::Trouble, version::BUILD};

pub(crate) fn run(args: &RunArgs) -> Result<Exit, Trouble> {
    let ended = runtime()?.block_on(corinth_gateway::run::run(&args.config, BUILD));
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
