//! `corinth help`: of a command, or on what no single command owns.

use crate::{
    args::{self, HelpArgs},
    exit::Exit,
    output::{Cell, table},
    terminal::Terminal,
    trouble::Trouble,
};

pub(crate) fn help(terminal: &Terminal, args: &HelpArgs) -> Result<Exit, Trouble> {
    if args.topic == ["exit-codes"] {
        let rows: Vec<_> = Exit::ALL
            .iter()
            .map(|exit| vec![Cell::plain(exit.code()), Cell::plain(exit.meaning())])
            .collect();
        terminal.print(&table(&["CODE", "MEANING"], &rows, terminal.stdout))?;
        return Ok(Exit::Done);
    }
    let mut command = args::command();
    // Names and usage of subcommands are complete only once this is done.
    command.build();
    for name in &args.topic {
        command = match command.find_subcommand(name) {
            Some(found) => found.clone(),
            None => {
                return Err(Trouble::new(
                    Exit::Usage,
                    format!("there is no help on `{}`", args.topic.join(" ")),
                    format!("`{name}` is neither a command nor `exit-codes`"),
                    "corinth help",
                ));
            }
        };
    }
    let text = command.render_long_help();
    let text = if terminal.stdout.is_coloured {
        text.ansi().to_string()
    } else {
        text.to_string()
    };
    terminal.print(&text)?;
    Ok(Exit::Done)
}
