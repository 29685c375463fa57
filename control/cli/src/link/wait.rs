//! Waiting until a link does what it is for.

use std::time::Duration;

use corinth_api::wire::admin::status_request::Kind;
use tokio::time::{Instant, sleep};

use crate::{
    control::{Control, Link},
    exit::Exit,
    trouble::Trouble,
};

/// How long `--wait` waits unless told otherwise.
const WAIT: Duration = Duration::from_mins(5);
/// How often it looks: what it waits for depends on another cluster.
const LOOK: Duration = Duration::from_millis(500);

/// Looks until the tunnel to `peer` is up and its control plane has told its services.
pub(super) async fn until_linked(
    control: &Control,
    peer: &str,
    limit: Option<Duration>,
) -> Result<(), Trouble> {
    let limit = limit.unwrap_or(WAIT);
    let deadline = Instant::now() + limit;
    loop {
        let links: Result<Vec<Link>, _> = control.ask(Kind::Links).await;
        let pending = match links {
            Ok(links) => match links.iter().find(|link| link.cluster == peer) {
                Some(link) if link.is_linked() => return Ok(()),
                Some(link) => pending(link),
                None => "the link is not there yet".to_owned(),
            },
            Err(trouble) => format!("{}: {}", trouble.what, trouble.why),
        };
        if Instant::now() + LOOK >= deadline {
            return Err(Trouble::new(
                Exit::TimedOut,
                format!("the link with {peer} does not stand after {limit:?}"),
                pending,
                "corinth check says what is in the way; the link is declared, and is dialled on",
            ));
        }
        sleep(LOOK).await;
    }
}

fn pending(link: &Link) -> String {
    if link.tunnel == "up" {
        return format!(
            "the tunnel is up, the control plane of the peer is {}",
            link.peering
        );
    }
    format!("the tunnel is {}", link.tunnel)
}
