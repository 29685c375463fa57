//! `corinth link ONE OTHER`: linking two clusters that one person holds, by a token that nobody sees.

use std::time::Duration;

use corinth_api::wire::admin::status_request::Kind;

use super::{create_token, join_with, wait};
use crate::{
    args::BothArgs,
    control::{Place, Status, act, ask_each},
    exit::Exit,
    terminal::{Terminal, plain},
    trouble::Trouble,
};

/// The token is used at once.
const TOKEN_TTL: Duration = Duration::from_mins(1);

pub(super) fn both(terminal: &Terminal, args: &BothArgs) -> Result<Exit, Trouble> {
    let places = args.nodes.iter().map(|node| Place::of_either(node));
    let places: Vec<_> = places.collect::<Result<_, _>>()?;
    let answers = ask_each(places, args.timeout, |control| async move {
        control.ask::<Status>(Kind::Status).await
    })?;
    let mut sides = Vec::with_capacity(2);
    for (place, answer) in answers {
        sides.push((place, answer?));
    }
    let [(one, first), (other, second)] = &sides[..] else {
        return Err(Trouble::internal(
            "nothing was linked",
            "there are not two clusters",
        ));
    };
    let (first_name, second_name) = (plain(&first.cluster), plain(&second.cluster));
    let knows =
        |who: &Status, whom: &Status| who.links.iter().any(|link| link.cluster == whom.cluster);
    if knows(first, second) && knows(second, first) {
        terminal.print(&format!(
            "{first_name} and {second_name} are linked already\n"
        ))?;
        return Ok(Exit::Done);
    }

    let dials = if args.one_way {
        format!("only {second_name} dials")
    } else {
        "both dial".to_owned()
    };
    let plan = format!(
        "plan\n  1 {first_name}: make a token for one use, on {one}\n  \
         2 {second_name}: join with it, on {other}; {dials}\n"
    );
    if args.dry_run {
        terminal.print(&plan)?;
        return Ok(Exit::Done);
    }
    terminal.note(&plan);
    let token = act(one.clone(), args.timeout, |control| {
        create_token(control, TOKEN_TTL, 1)
    })?;
    act(other.clone(), args.timeout, |control| async move {
        let peer = join_with(&control, token, args.one_way).await?;
        if args.wait.wait.is_some() {
            wait::until_linked(&control, &peer, args.timeout).await?;
        }
        Ok(())
    })?;
    terminal.print(&format!("{first_name} and {second_name} are linked\n"))?;
    terminal.note(
        "neither accepts or exports anything yet: corinth export on the one side, corinth link accept on the other\n",
    );
    Ok(Exit::Done)
}
