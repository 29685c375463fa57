//! `corinth link`: links clusters, and looks after their links.

mod both;
mod show;
mod wait;

use std::{
    fs,
    io::{self, Read},
    path::Path,
    time::Duration,
};

use corinth_api::wire::admin::{
    AcceptRequest, AddLinkRequest, CarryLinkRequest, ChangeLinkRequest, CreateTokenRequest,
    DenyRequest, JoinRequest, OwnLinkRequest, change_link_request::Change,
};
use corinth_model::TransportChoice;

use crate::{
    args::{ControlArgs, LinkArgs, LinkCommand, PeerArgs, Risk, TokenCommand, WaitArgs, WhoArgs},
    control::{Client, Control, act, place},
    exit::Exit,
    terminal::{Terminal, plain},
    trouble::Trouble,
};

/// Largest text that is read as a token or a link: far more than the roots and addresses of one.
const INPUT_MAX_BYTES: u64 = 1 << 20;

pub(crate) fn link(terminal: &Terminal, args: LinkArgs) -> Result<Exit, Trouble> {
    let Some(command) = args.command else {
        return both::both(terminal, &args.both);
    };
    match command {
        LinkCommand::Token {
            command: TokenCommand::Create { ttl, uses, control },
        } => token(terminal, ttl, uses, &control),
        LinkCommand::Join {
            token,
            one_way,
            wait,
            control,
        } => join(terminal, &token, one_way, &wait, &control),
        LinkCommand::Show { control } => own(terminal, &control),
        LinkCommand::Add { file, control } => add(terminal, &file, &control),
        LinkCommand::List(args) => show::list(terminal, &args),
        LinkCommand::Status { peer, show } => show::status(terminal, peer.as_ref(), &show),
        LinkCommand::Pause(args) => change(terminal, &args, Change::Pause),
        LinkCommand::Resume(args) => change(terminal, &args, Change::Resume),
        LinkCommand::Drain(args) => change(terminal, &args, Change::Drain),
        LinkCommand::Transport {
            peer,
            transport,
            congestion,
            control,
        } => {
            let request = CarryLinkRequest {
                cluster: peer.to_string(),
                transport: transport.map_or("", TransportChoice::as_str).to_owned(),
                congestion: congestion.unwrap_or_default(),
            };
            carry(terminal, request, &control)
        }
        LinkCommand::Confirm(args) => change(terminal, &args, Change::Confirm),
        LinkCommand::Delete { peer, accept_risk } => delete(terminal, &peer, accept_risk),
        LinkCommand::Accept {
            peer,
            services,
            none: _,
            control,
        } => {
            let request = AcceptRequest {
                cluster: peer.to_string(),
                services: services.iter().map(ToString::to_string).collect(),
            };
            accept(terminal, request, &control)
        }
        LinkCommand::Deny(args) => deny(terminal, &args, false),
        LinkCommand::Believe(args) => deny(terminal, &args, true),
    }
}

fn token(
    terminal: &Terminal,
    ttl: Duration,
    uses: u32,
    args: &ControlArgs,
) -> Result<Exit, Trouble> {
    let token = act(place(args)?, args.timeout, |control| {
        create_token(control, ttl, uses)
    })?;
    terminal.print(&format!("{token}\n"))?;
    let times = match uses {
        1 => "once".to_owned(),
        uses => format!("{uses} times"),
    };
    terminal.note(&format!(
        "on the other side, {times} and within {ttl:?}:\n  corinth link join TOKEN\n\
         whoever has the token can link; hand it over on a way that you trust\n"
    ));
    Ok(Exit::Done)
}

async fn create_token(control: Control, ttl: Duration, uses: u32) -> Result<String, Trouble> {
    let request = CreateTokenRequest {
        ttl_seconds: u32::try_from(ttl.as_secs().max(1)).unwrap_or(u32::MAX),
        uses,
    };
    let change = |mut client: Client| async move { client.create_token(request).await };
    let answer = control.change("no token was made", change).await?;
    Ok(answer.token)
}

fn join(
    terminal: &Terminal,
    token: &str,
    one_way: bool,
    wait: &WaitArgs,
    args: &ControlArgs,
) -> Result<Exit, Trouble> {
    let token = match token {
        "-" => input(Path::new("-"))?,
        token => token.to_owned(),
    };
    let token = token.trim().to_owned();
    let peer = act(place(args)?, args.timeout, |control| async move {
        let peer = join_with(&control, token, one_way).await?;
        if wait.wait.is_some() {
            wait::until_linked(&control, &peer, args.timeout).await?;
        }
        Ok(peer)
    })?;
    let peer = plain(&peer);
    terminal.print(&format!("linked with {peer}\n"))?;
    terminal.note(&format!(
        "nothing of {peer} is accepted and nothing is exported to it yet:\n  \
         corinth link accept {peer} SERVICE.NAMESPACE\n  corinth export SERVICE.NAMESPACE --to {peer}\n"
    ));
    Ok(Exit::Done)
}

async fn join_with(control: &Control, token: String, one_way: bool) -> Result<String, Trouble> {
    let request = JoinRequest { token, one_way };
    let change = |mut client: Client| async move { client.join(request).await };
    let answer = control
        .change("the clusters are not linked", change)
        .await?;
    Ok(answer.cluster)
}

fn own(terminal: &Terminal, args: &ControlArgs) -> Result<Exit, Trouble> {
    let answer = act(place(args)?, args.timeout, |control| async move {
        let change = |mut client: Client| async move { client.own_link(OwnLinkRequest {}).await };
        control
            .change("the declaration cannot be shown", change)
            .await
    })?;
    terminal.print(&answer.link)?;
    Ok(Exit::Done)
}

fn add(terminal: &Terminal, file: &Path, args: &ControlArgs) -> Result<Exit, Trouble> {
    let link = input(file)?;
    let answer = act(place(args)?, args.timeout, |control| async move {
        let request = AddLinkRequest { link };
        let change = |mut client: Client| async move { client.add_link(request).await };
        control.change("the link is not declared", change).await
    })?;
    terminal.print(&format!(
        "the link with {} is declared\n",
        plain(&answer.cluster)
    ))?;
    Ok(Exit::Done)
}

fn change(terminal: &Terminal, args: &PeerArgs, change: Change) -> Result<Exit, Trouble> {
    let peer = &args.peer;
    let (done, failed) = match change {
        Change::Unspecified | Change::Pause => ("is paused", "is not paused"),
        Change::Resume => ("is in use", "is not resumed"),
        Change::Drain => (
            "takes no new connections where others can; open ones go on",
            "is not drained",
        ),
        Change::Delete => (
            "is deleted; the other side may delete it too",
            "is not deleted",
        ),
        Change::Confirm => (
            "holds what the peer offers now, and nothing that it left out",
            "is as before",
        ),
    };
    let request = ChangeLinkRequest {
        cluster: peer.to_string(),
        change: change.into(),
    };
    let failed = format!("the link with {peer} {failed}");
    act(
        place(&args.control)?,
        args.control.timeout,
        |control| async move {
            let change = |mut client: Client| async move { client.change_link(request).await };
            control.change(&failed, change).await
        },
    )?;
    terminal.print(&format!("the link with {peer} {done}\n"))?;
    Ok(Exit::Done)
}

fn carry(
    terminal: &Terminal,
    request: CarryLinkRequest,
    args: &ControlArgs,
) -> Result<Exit, Trouble> {
    let CarryLinkRequest {
        cluster,
        transport,
        congestion,
    } = request.clone();
    let words = [transport, congestion];
    let words = words.iter().filter(|word| !word.is_empty());
    let words: Vec<_> = words.map(String::as_str).collect();
    let failed = format!("what carries streams to {cluster} is as before");
    act(place(args)?, args.timeout, |control| async move {
        let change = |mut client: Client| async move { client.carry_link(request).await };
        control.change(&failed, change).await
    })?;
    terminal.print(&format!(
        "streams to {cluster} are carried by: {}\n",
        words.join(", ")
    ))?;
    Ok(Exit::Done)
}

fn delete(terminal: &Terminal, args: &PeerArgs, accepted: Option<Risk>) -> Result<Exit, Trouble> {
    match accepted {
        Some(Risk::DropLiveConnections) => change(terminal, args, Change::Delete),
        None => Err(Trouble::new(
            Exit::Usage,
            format!("the link with {} is not deleted", args.peer),
            "connections that are open over it would be cut",
            format!(
                "move them away first with corinth link drain {}, \
                 then repeat this with --accept-risk=drop-live-connections",
                args.peer
            ),
        )),
    }
}

fn accept(
    terminal: &Terminal,
    request: AcceptRequest,
    args: &ControlArgs,
) -> Result<Exit, Trouble> {
    let peer = request.cluster.clone();
    let accepted = if request.services.is_empty() {
        "nothing".to_owned()
    } else {
        request.services.join(", ")
    };
    let failed = format!("what is accepted of {peer} is as before");
    act(place(args)?, args.timeout, |control| async move {
        let change = |mut client: Client| async move { client.accept(request).await };
        control.change(&failed, change).await
    })?;
    terminal.print(&format!("accepted of {peer}: {accepted}\n"))?;
    Ok(Exit::Done)
}

fn deny(terminal: &Terminal, args: &WhoArgs, lift: bool) -> Result<Exit, Trouble> {
    let who = plain(&args.who);
    let (done, failed) = if lift {
        ("is believed again", "is not believed again")
    } else {
        ("is no longer believed", "is still believed")
    };
    let request = DenyRequest {
        who: args.who.clone(),
        lift,
    };
    let failed = format!("{who} {failed}");
    act(
        place(&args.control)?,
        args.control.timeout,
        |control| async move {
            let change = |mut client: Client| async move { client.deny(request).await };
            control.change(&failed, change).await
        },
    )?;
    terminal.print(&format!("{who} {done}\n"))?;
    Ok(Exit::Done)
}

/// What stands in a file, or comes in on standard input for `-`.
fn input(path: &Path) -> Result<String, Trouble> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        io::stdin()
            .lock()
            .take(INPUT_MAX_BYTES)
            .read_to_string(&mut text)
    } else {
        fs::File::open(path).and_then(|file| file.take(INPUT_MAX_BYTES).read_to_string(&mut text))
    };
    read.map_err(|error| {
        Trouble::new(
            Exit::Unreachable,
            format!("{} cannot be read", path.display()),
            error,
            "check the path and who may read it; - is standard input",
        )
    })?;
    Ok(text)
}
