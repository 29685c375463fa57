//! `corinth links`: the links of a running gateway, and waiting for them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::{
    admin,
    args::LinksArgs,
    exit::Exit,
    output::{Cell, Item, Listing},
    run,
    terminal::{Mark, Style, Terminal},
    trouble::Trouble,
};

/// How long `--wait` waits unless told otherwise.
const WAIT: Duration = Duration::from_mins(5);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(200);

/// The page as the gateway shows it.
#[derive(Deserialize)]
struct Page {
    links: Vec<Link>,
    unlinked: Vec<String>,
}

/// One link to one gateway of a peer, or a peer without any.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Link {
    peer: Option<String>,
    gateway: Option<String>,
    transport: Option<String>,
    state: String,
    rtt_seconds: Option<f64>,
    #[serde(default)]
    sent_goodput_bytes_per_second: Option<u64>,
    #[serde(default)]
    received_goodput_bytes_per_second: Option<u64>,
    #[serde(default)]
    sent_packets: Option<u64>,
    #[serde(default)]
    lost_packets: Option<u64>,
    connections: u32,
    streams: u32,
    opened: u64,
    accepted: u64,
    #[serde(default)]
    is_used: bool,
    #[serde(default)]
    cause: Option<String>,
}

impl Page {
    fn is_up(&self) -> bool {
        let is_linked = |peer: &Option<String>| {
            let mut links = self.links.iter();
            links.any(|link| link.peer == *peer && link.state == "up")
        };
        self.unlinked.is_empty() && self.links.iter().all(|link| is_linked(&link.peer))
    }

    /// Peers without a link stand in the list too, so that they are not missed.
    fn into_links(self) -> Vec<Link> {
        let unlinked = self.unlinked.into_iter().map(|peer| Link {
            peer: Some(peer),
            gateway: None,
            transport: None,
            state: "unlinked".to_owned(),
            rtt_seconds: None,
            sent_goodput_bytes_per_second: None,
            received_goodput_bytes_per_second: None,
            sent_packets: None,
            lost_packets: None,
            connections: 0,
            streams: 0,
            opened: 0,
            accepted: 0,
            is_used: false,
            cause: None,
        });
        self.links.into_iter().chain(unlinked).collect()
    }

    fn pending(&self) -> String {
        let links = self.links.iter().filter(|link| link.state != "up");
        let links = links.map(|link| {
            let peer = link.peer.as_deref().or(link.gateway.as_deref());
            format!("{} is {}", peer.unwrap_or("a link"), link.state)
        });
        let unlinked = self
            .unlinked
            .iter()
            .map(|peer| format!("{peer} is unlinked"));
        links.chain(unlinked).collect::<Vec<_>>().join(", ")
    }
}

impl Link {
    /// Whether new streams go this way, and why where the gateway has chosen.
    fn used(&self) -> Option<String> {
        self.transport.as_ref()?;
        let used = if self.is_used { "yes" } else { "no" };
        Some(match &self.cause {
            Some(cause) => format!("{used} ({cause})"),
            None => used.to_owned(),
        })
    }

    /// How many packets of those that were sent were lost.
    fn loss(&self) -> Option<String> {
        let sent = self.sent_packets.filter(|sent| *sent > 0)?;
        let percent = self.lost_packets? as f64 / sent as f64 * 100.0;
        Some(format!("{percent:.1} %"))
    }

    /// What the link delivered in both directions when it was given more than it took.
    fn goodput(&self) -> Option<String> {
        let shown = [
            (self.sent_goodput_bytes_per_second, "out"),
            (self.received_goodput_bytes_per_second, "in"),
        ];
        let shown = shown.into_iter().filter_map(|(rate, way)| {
            let megabits = rate? as f64 * 8.0 / 1e6;
            Some(format!("{megabits:.0} Mb/s {way}"))
        });
        let shown: Vec<String> = shown.collect();
        (!shown.is_empty()).then(|| shown.join(", "))
    }
}

impl Item for Link {
    const KIND: &'static str = "Links";
    const HEADERS: &'static [&'static str] = &[
        "PEER",
        "STATE",
        "RTT",
        "LOSS",
        "GOODPUT",
        "TRANSPORT",
        "USED",
        "CONNECTIONS",
        "STREAMS",
        "OPENED",
        "ACCEPTED",
        "GATEWAY",
    ];

    fn rows(&self, style: Style) -> Vec<Vec<Cell>> {
        let mark = match self.state.as_str() {
            "up" => Mark::Good,
            "draining" => Mark::Warning,
            _ => Mark::Bad,
        };
        let rtt = self.rtt_seconds.map(|rtt| format!("{:.1} ms", rtt * 1e3));
        vec![vec![
            Cell::optional(self.peer.as_ref()),
            Cell::marked(style, mark, &self.state),
            Cell::optional(rtt),
            Cell::optional(self.loss()),
            Cell::optional(self.goodput()),
            Cell::optional(self.transport.as_ref()),
            Cell::optional(self.used()),
            Cell::plain(self.connections),
            Cell::plain(self.streams),
            Cell::plain(self.opened),
            Cell::plain(self.accepted),
            Cell::optional(self.gateway.as_ref()),
        ]]
    }

    fn name(&self) -> String {
        format!("link/{}", self.peer.as_deref().unwrap_or("-"))
    }
}

pub(crate) fn links(terminal: &Terminal, args: &LinksArgs) -> Result<Exit, Trouble> {
    let page = run::runtime()?.block_on(async {
        if args.wait {
            wait(args).await
        } else {
            admin::ask(&args.admin, "/links").await
        }
    })?;
    if page.links.is_empty() && page.unlinked.is_empty() {
        terminal.note("no links: this gateway has no peers\n");
    }
    Listing::whole(page.into_links()).print(terminal, args.output)?;
    Ok(Exit::Done)
}

/// Looks until every peer is linked. A gateway that does not answer yet may be starting.
async fn wait(args: &LinksArgs) -> Result<Page, Trouble> {
    let limit = args.admin.timeout.unwrap_or(WAIT);
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let looked: Result<Page, Trouble> = admin::ask_within(&args.admin, "/links", left).await;
        let pending = match looked {
            Ok(page) if page.is_up() => return Ok(page),
            Ok(page) => page.pending(),
            Err(trouble) => format!("{}: {}", trouble.what, trouble.why),
        };
        if Instant::now() + LOOK >= deadline {
            return Err(Trouble::new(
                Exit::TimedOut,
                format!("not every peer is linked after {limit:?}"),
                pending,
                "look into the gateway's log: it says why it cannot link, and dials on",
            ));
        }
        sleep(LOOK).await;
    }
}
