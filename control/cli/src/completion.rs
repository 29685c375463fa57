//! `corinth completion`.

use crate::{
    args::{self, CompletionArgs},
    exit::Exit,
    terminal::Terminal,
    trouble::Trouble,
};

pub(crate) fn completion(terminal: &Terminal, args: &CompletionArgs) -> Result<Exit, Trouble> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "corinth", &mut script);
    terminal.print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
