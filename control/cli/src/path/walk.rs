//! Walks the way of a call through what control planes say. Decides nothing: it repeats what was decided, in order.

use corinth_model::{Selector, ServiceId};
use serde::Serialize;

use crate::{
    control::{Candidate, Export, Import, Link, Route, Status, Target},
    exit::Exit,
    trouble::Trouble,
};

/// What one control plane says.
pub(super) struct Snapshot {
    pub(super) status: Status,
    pub(super) routes: Vec<Route>,
    pub(super) imports: Vec<Import>,
    pub(super) exports: Vec<Export>,
}

/// One step of the way.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Step {
    pub(super) step: &'static str,
    /// The candidate it belongs to; none for those before the ways part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) candidate: Option<String>,
    pub(super) state: StepState,
    /// What was seen.
    pub(super) fact: String,
    /// What it follows from.
    pub(super) object: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum StepState {
    Ok,
    Warning,
    Blocked,
    Unknown,
}

/// The whole way.
pub(super) struct Walk {
    pub(super) steps: Vec<Step>,
    /// At least one candidate has no step that is blocked.
    pub(super) is_reachable: bool,
    /// And none that is unknown.
    pub(super) is_certain: bool,
}

impl StepState {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Blocked => "blocked",
            Self::Unknown => "unknown",
        }
    }
}

/// Walks from `near` to what `destination` means there; `others` may include the far side.
pub(super) fn walk(
    near: &Snapshot,
    others: &[Snapshot],
    destination: &str,
) -> Result<Walk, Trouble> {
    let Some(route) = find(near, destination)? else {
        return Ok(Walk {
            steps: unknown(near, destination),
            is_reachable: false,
            is_certain: true,
        });
    };
    let mut steps = vec![
        step(
            "name",
            StepState::Ok,
            format!("{destination} is {}", route.name),
            "routes",
        ),
        match route.import_port {
            Some(port) => step(
                "import port",
                StepState::Ok,
                format!("connect to port {port}"),
                "routes",
            ),
            None => step(
                "import port",
                StepState::Warning,
                "none; reached by server name or proxy only".to_owned(),
                "routes",
            ),
        },
    ];
    if route.candidates.is_empty() {
        steps.push(step(
            "candidates",
            StepState::Blocked,
            "nobody can answer".to_owned(),
            "routes",
        ));
    }
    let mut candidates: Vec<&Candidate> = route.candidates.iter().collect();
    candidates.sort_by_key(|candidate| candidate.priority);
    let (mut is_reachable, mut is_certain) = (false, false);
    for candidate in candidates {
        let by = candidate.target.to_string();
        let mut of_candidate = match &candidate.target {
            Target::Endpoint(address) => vec![step(
                "endpoint",
                StepState::Ok,
                format!("{address} in this cluster"),
                "services",
            )],
            Target::Cluster(peer) => through(near, others, route, peer),
        };
        let has = |state| of_candidate.iter().any(|step| step.state == state);
        if !has(StepState::Blocked) {
            is_reachable = true;
            is_certain |= !has(StepState::Unknown);
        }
        for step in &mut of_candidate {
            step.candidate = Some(by.clone());
        }
        steps.append(&mut of_candidate);
    }
    Ok(Walk {
        steps,
        is_reachable,
        is_certain,
    })
}

/// The route that is meant: by import port, by its whole name, or by service with or without a port.
fn find<'a>(near: &'a Snapshot, destination: &str) -> Result<Option<&'a Route>, Trouble> {
    if let Ok(port) = destination.parse::<u16>() {
        let mut routes = near.routes.iter();
        return Ok(routes.find(|route| route.import_port == Some(port)));
    }
    let whole = destination.trim_end_matches('.');
    if let Some(route) = near.routes.iter().find(|route| route.name == whole) {
        return Ok(Some(route));
    }
    let (service, port) = named(destination);
    let is_meant =
        |route: &&Route| route.service() == service && port.is_none_or(|port| route.port() == port);
    let routes: Vec<_> = near.routes.iter().filter(is_meant).collect();
    match routes[..] {
        [] => Ok(None),
        [route] => Ok(Some(route)),
        [..] => {
            let ports: Vec<_> = routes.iter().map(|route| route.port()).collect();
            Err(Trouble::new(
                Exit::Usage,
                format!(
                    "{} does not say which port is meant",
                    destination.escape_debug()
                ),
                format!("the service has these: {}", ports.join(", ")),
                format!(
                    "corinth path {} {service}:{}",
                    near.status.cluster, ports[0]
                ),
            ))
        }
    }
}

/// `payments.shop:80` as service and port; `shop/payments` is taken as well.
fn named(destination: &str) -> (String, Option<&str>) {
    let (service, port) = match destination.rsplit_once(':') {
        Some((service, port)) => (service, Some(port)),
        None => (destination, None),
    };
    let service = match service.split_once('/') {
        Some((namespace, service)) => format!("{service}.{namespace}"),
        None => service.to_owned(),
    };
    (service, port)
}

/// Why there is no route: it is not offered, or not accepted.
fn unknown(near: &Snapshot, destination: &str) -> Vec<Step> {
    let name = |fact: String| step("name", StepState::Blocked, fact, "routes");
    let (service, port) = named(destination);
    if service.parse::<u16>().is_ok() {
        return vec![name(format!("{destination} is not an import port here"))];
    }
    let mut offered = near
        .imports
        .iter()
        .filter(|import| import.service == service);
    if let (Some(import), Some(port)) = (offered.next(), port) {
        let fact = format!(
            "{service} is usable here, but not on port {port}; {} offers it",
            import.from
        );
        return vec![name(fact)];
    }
    let mut refused = near.status.conditions.iter();
    let refused =
        refused.find(|condition| condition.name == "not_accepted" && condition.is_about(&service));
    let mut steps = vec![name(format!("{service} is not usable here"))];
    steps.push(match refused {
        Some(condition) => step(
            "accept",
            StepState::Blocked,
            format!("{} {}", condition.summary, condition.subject()),
            &condition.code,
        ),
        None => step(
            "offer",
            StepState::Blocked,
            format!("no linked cluster offers {service} to this one, as far as is accepted here"),
            "links",
        ),
    });
    steps
}

/// The steps to and in one peer.
fn through(near: &Snapshot, others: &[Snapshot], route: &Route, peer: &str) -> Vec<Step> {
    let mut links = near.status.links.iter();
    let Some(link) = links.find(|link| link.cluster == peer) else {
        let fact = format!("there is no link with {peer}");
        return vec![step("link", StepState::Blocked, fact, "CRN095")];
    };
    let mut steps = vec![
        mode(link),
        tunnel(link),
        peering(link),
        offer(near, route.service(), peer),
        accept(link, route.service()),
    ];
    match others.iter().find(|other| other.status.cluster == peer) {
        Some(far) => steps.extend(far_side(far, route.service(), &near.status.cluster)),
        None => steps.push(step(
            "far side",
            StepState::Unknown,
            format!("give the control plane of {peer} too, to see its side"),
            "not asked",
        )),
    }
    steps
}

fn mode(link: &Link) -> Step {
    let state = match link.mode.as_str() {
        "active" => StepState::Ok,
        "paused" => StepState::Blocked,
        _ => StepState::Warning,
    };
    step(
        "link",
        state,
        format!("{} is linked, {}", link.cluster, link.mode),
        "links",
    )
}

fn tunnel(link: &Link) -> Step {
    let state = match link.tunnel.as_str() {
        "up" => StepState::Ok,
        "draining" => StepState::Warning,
        "unknown" => StepState::Unknown,
        _ => StepState::Blocked,
    };
    let rtt = link
        .rtt()
        .map_or_else(String::new, |rtt| format!(", {rtt}"));
    step("tunnel", state, format!("{}{rtt}", link.tunnel), "gateways")
}

/// A silent control plane stops nothing: what it told stays in use.
fn peering(link: &Link) -> Step {
    let (state, fact) = match link.peering.as_str() {
        "told" => (StepState::Ok, "its control plane is heard".to_owned()),
        other => (
            StepState::Warning,
            format!("its control plane is {other}; what it told before stays in use"),
        ),
    };
    step("peer", state, fact, "peering")
}

fn offer(near: &Snapshot, service: &str, peer: &str) -> Step {
    let mut imports = near.imports.iter();
    let import = imports.find(|import| import.service == service && import.from == peer);
    let (state, fact) = match import {
        None => (
            StepState::Blocked,
            format!("{peer} does not offer {service}"),
        ),
        Some(import) if import.ready == 0 => {
            (StepState::Blocked, "no endpoint is ready there".to_owned())
        }
        Some(import) if import.stale => (
            StepState::Warning,
            "left out of the newest state; about to be removed".to_owned(),
        ),
        Some(import) => (StepState::Ok, format!("{} ready endpoints", import.ready)),
    };
    step("offer", state, fact, "imports")
}

fn accept(link: &Link, service: &str) -> Step {
    let is_accepted = |selector: &&String| {
        let selector: Option<Selector> = selector.parse().ok();
        let service: Option<ServiceId> = service.parse().ok();
        matches!((selector, service), (Some(selector), Some(service)) if selector.matches(&service))
    };
    match link.accepted.iter().find(is_accepted) {
        Some(selector) => step(
            "accept",
            StepState::Ok,
            format!("accepted by {selector}"),
            "links",
        ),
        None => step(
            "accept",
            StepState::Blocked,
            format!("the link accepts: {}", link.accepted.join(", ")),
            "links",
        ),
    }
}

fn far_side(far: &Snapshot, service: &str, near: &str) -> Vec<Step> {
    let cluster = &far.status.cluster;
    let Some(export) = far.exports.iter().find(|export| export.service == service) else {
        let fact = format!("{cluster} does not export {service}");
        return vec![step("export", StepState::Blocked, fact, "exports")];
    };
    let is_open = export.open_to.iter().any(|open| open == near);
    let audience = if is_open {
        step(
            "audience",
            StepState::Ok,
            format!("open to {near}"),
            "exports",
        )
    } else {
        let fact = format!("not open to {near}; declared for: {}", export.to.join(", "));
        step("audience", StepState::Blocked, fact, "exports")
    };
    let endpoints = if export.endpoints == 0 {
        step(
            "endpoints",
            StepState::Blocked,
            "none".to_owned(),
            "services",
        )
    } else {
        step(
            "endpoints",
            StepState::Ok,
            export.endpoints.to_string(),
            "services",
        )
    };
    let exported = step(
        "export",
        StepState::Ok,
        format!("{cluster} exports it"),
        "exports",
    );
    vec![exported, audience, endpoints]
}

fn step(step: &'static str, state: StepState, fact: String, object: &str) -> Step {
    Step {
        step,
        candidate: None,
        state,
        fact,
        object: object.to_owned(),
    }
}
