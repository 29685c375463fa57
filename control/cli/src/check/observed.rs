//! What checks are made on: what the control plane says, and what can be seen from here.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use corinth_api::wire::admin::status_request::Kind;
use jiff::Timestamp;
use tokio::{
    net::{TcpStream, lookup_host},
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    control::{Certificate, Control, Export, Import, Place, Status},
    trouble::Trouble,
};

/// How long a name may take to resolve, and an address to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// All that was seen. What could not be looked up says why.
pub(super) struct Observed {
    /// The socket that was asked.
    pub(super) place: String,
    pub(super) status: Result<Status, String>,
    pub(super) exports: Result<Vec<Export>, String>,
    pub(super) imports: Result<Vec<Import>, String>,
    pub(super) certificates: Result<Vec<Certificate>, String>,
    /// By gateway address of a peer.
    pub(super) probes: BTreeMap<String, Probe>,
    /// Unix seconds.
    pub(super) now: i64,
}

/// What was seen of one gateway address from here.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    pub(super) resolved: Result<Vec<SocketAddr>, String>,
    /// How long the first address took that answered; all are called at once.
    pub(super) answered: Result<Duration, String>,
}

pub(super) async fn observe(place: Place, within: Option<Duration>) -> Observed {
    let control = Control::connect(place.clone(), within).await;
    let mut observed = match control {
        Ok(control) => ask(&control).await,
        Err(trouble) => Observed::nothing(&place, &trouble),
    };
    if let Ok(status) = &observed.status {
        let addresses = status.links.iter().flat_map(|link| &link.addresses);
        observed.probes = probe_all(addresses.cloned().collect()).await;
    }
    observed
}

async fn ask(control: &Control) -> Observed {
    let (status, exports, imports, certificates) = tokio::join!(
        control.ask(Kind::Status),
        control.ask(Kind::Exports),
        control.ask(Kind::Imports),
        control.ask(Kind::Certificates),
    );
    let why = |trouble: Trouble| trouble.why;
    Observed {
        place: control.place().to_string(),
        status: status.map_err(why),
        exports: exports.map_err(why),
        imports: imports.map_err(why),
        certificates: certificates.map_err(why),
        probes: BTreeMap::new(),
        now: Timestamp::now().as_second(),
    }
}

impl Observed {
    /// What the control plane did not tell although it answered, and why.
    pub(super) fn missing(&self) -> Vec<String> {
        let parts = [
            ("exports", self.exports.as_ref().err()),
            ("imports", self.imports.as_ref().err()),
            ("certificates", self.certificates.as_ref().err()),
        ];
        let missing = parts
            .into_iter()
            .filter_map(|(what, why)| Some((what, why?)));
        missing
            .map(|(what, why)| format!("{what}: {why}"))
            .collect()
    }

    fn nothing(place: &Place, trouble: &Trouble) -> Self {
        let why = || trouble.why.clone();
        Self {
            place: place.to_string(),
            status: Err(why()),
            exports: Err(why()),
            imports: Err(why()),
            certificates: Err(why()),
            probes: BTreeMap::new(),
            now: 0,
        }
    }
}

async fn probe_all(addresses: Vec<String>) -> BTreeMap<String, Probe> {
    let mut probing = JoinSet::new();
    for address in addresses {
        probing.spawn(async move {
            let probe = probe(&address).await;
            (address, probe)
        });
    }
    probing.join_all().await.into_iter().collect()
}

async fn probe(address: &str) -> Probe {
    let too_late = || format!("nothing came within {PROBE_TIMEOUT:?}");
    let resolved = match timeout(PROBE_TIMEOUT, lookup_host(address)).await {
        Ok(Ok(found)) => Ok(found.collect::<Vec<_>>()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(too_late()),
    };
    let begun = Instant::now();
    let mut calls: JoinSet<_> = resolved
        .iter()
        .flatten()
        .map(|address| TcpStream::connect(*address))
        .collect();
    let first = async {
        let mut answered = Err("it has no address".to_owned());
        while let Some(called) = calls.join_next().await {
            answered = match called {
                Ok(Ok(_)) => return Ok(begun.elapsed()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(error) => Err(error.to_string()),
            };
        }
        answered
    };
    let answered = timeout(PROBE_TIMEOUT, first).await;
    Probe {
        answered: answered.unwrap_or_else(|_| Err(too_late())),
        resolved,
    }
}
