//! What each check finds. A function has the name of its check.

use std::collections::BTreeSet;

use super::observed::{Observed, Probe};
use crate::control::{Certificate, Condition, Link, Status};

const HOUR: i64 = 3_600;
/// A leaf lives for 24 hours and is renewed with 12 left; with less than this the renewal has failed for hours.
const LEAF_LEFT_MIN: i64 = 8 * HOUR;
const ROOT_LEFT_MIN: i64 = 30 * 24 * HOUR;
/// A round trip around half the earth, and some queueing.
const RTT_MAX_US: u64 = 300_000;

/// Conditions that have a check of their own.
const LOOKED_AT: &[&str] = &[
    "CRN070", "CRN071", "CRN072", "CRN073", "CRN074", "CRN075", "CRN076", "CRN077", "CRN078",
    "CRN079", "CRN086", "CRN087", "CRN088", "CRN090", "CRN091", "CRN092", "CRN093", "CRN094",
    "CRN096", "CRN097", "CRN098", "CRN099", "CRN706",
];

/// What was found for one subject.
pub(super) struct Finding {
    pub(super) subject: Option<String>,
    pub(super) verdict: Verdict,
    pub(super) seen: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    Warning,
    Bad,
    /// Could not be looked at.
    Unseen,
}

impl Verdict {
    /// `self` unless it holds.
    const fn unless(self, holds: bool) -> Self {
        if holds { Self::Good } else { self }
    }
}

fn found(verdict: Verdict, seen: impl Into<String>) -> Finding {
    Finding {
        subject: None,
        verdict,
        seen: seen.into(),
    }
}

fn about(subject: &str, verdict: Verdict, seen: impl Into<String>) -> Finding {
    Finding {
        subject: Some(subject.to_owned()),
        ..found(verdict, seen)
    }
}

/// Findings from something that may not have been looked up.
fn from<T>(seen: &Result<T, String>, look: impl FnOnce(&T) -> Vec<Finding>) -> Vec<Finding> {
    match seen {
        Ok(seen) => look(seen),
        Err(why) => vec![found(Verdict::Unseen, why)],
    }
}

fn each_link(observed: &Observed, look: impl Fn(&Link) -> Finding) -> Vec<Finding> {
    from(&observed.status, |status| {
        status.links.iter().map(look).collect()
    })
}

fn words(condition: &Condition) -> String {
    let words = [condition.subject(), condition.words.clone()];
    let words: Vec<_> = words
        .into_iter()
        .filter(|words| !words.is_empty())
        .collect();
    format!("{} {}", condition.code, words.join(": "))
        .trim_end()
        .to_owned()
}

/// That none of these conditions stands.
fn none_stands(observed: &Observed, codes: &[&str], verdict: Verdict) -> Vec<Finding> {
    from(&observed.status, |status| {
        let standing = status.conditions.iter();
        let standing: Vec<_> = standing
            .filter(|one| codes.contains(&one.code.as_str()))
            .collect();
        summed(&standing, verdict)
    })
}

fn summed(standing: &[&Condition], verdict: Verdict) -> Vec<Finding> {
    if standing.is_empty() {
        return vec![found(Verdict::Good, "")];
    }
    standing
        .iter()
        .map(|condition| found(verdict, words(condition)))
        .collect()
}

/// That none of these conditions stands about the peer of a link.
fn none_stands_on_links(observed: &Observed, codes: &[&str], verdict: Verdict) -> Vec<Finding> {
    each_link(observed, |link| {
        let conditions = observed.status.iter().flat_map(|status| &status.conditions);
        let mut standing = conditions
            .filter(|one| codes.contains(&one.code.as_str()) && one.is_about(&link.cluster));
        match standing.next() {
            Some(condition) => about(&link.cluster, verdict, words(condition)),
            None => about(&link.cluster, Verdict::Good, ""),
        }
    })
}

pub(super) fn control_plane_answers(observed: &Observed) -> Vec<Finding> {
    vec![match &observed.status {
        Ok(status) => found(
            Verdict::Good,
            format!("{}, revision {}", status.cluster, status.revision),
        ),
        Err(why) => found(Verdict::Bad, format!("{}: {why}", observed.place)),
    }]
}

pub(super) fn gateway_follows(observed: &Observed) -> Vec<Finding> {
    from(&observed.status, |status| {
        let gateways = status
            .consumers
            .iter()
            .filter(|one| one.role == "gateway")
            .count();
        vec![found(
            Verdict::Bad.unless(gateways > 0),
            format!("{gateways}"),
        )]
    })
}

pub(super) fn tables_taken(observed: &Observed) -> Vec<Finding> {
    each_consumer(observed, |_, consumer| match &consumer.refused {
        Some((revision, why)) => (Verdict::Bad, format!("revision {revision} refused: {why}")),
        None => (Verdict::Good, String::new()),
    })
}

pub(super) fn consumer_current(observed: &Observed) -> Vec<Finding> {
    each_consumer(observed, |status, consumer| {
        let seen = format!("revision {} of {}", consumer.applied, status.revision);
        (
            Verdict::Warning.unless(consumer.applied >= status.revision),
            seen,
        )
    })
}

fn each_consumer(
    observed: &Observed,
    look: impl Fn(&Status, &crate::control::Consumer) -> (Verdict, String),
) -> Vec<Finding> {
    from(&observed.status, |status| {
        let consumers = status.consumers.iter();
        consumers
            .map(|consumer| {
                let (verdict, seen) = look(status, consumer);
                about(
                    &format!("{}/{}", consumer.role, consumer.slot),
                    verdict,
                    seen,
                )
            })
            .collect()
    })
}

pub(super) fn declarations_readable(observed: &Observed) -> Vec<Finding> {
    none_stands(observed, &["CRN096"], Verdict::Bad)
}

pub(super) fn state_kept(observed: &Observed) -> Vec<Finding> {
    none_stands(observed, &["CRN097"], Verdict::Warning)
}

pub(super) fn no_other_condition(observed: &Observed) -> Vec<Finding> {
    from(&observed.status, |status| {
        let standing = status.conditions.iter();
        let standing: Vec<_> = standing
            .filter(|one| !LOOKED_AT.contains(&one.code.as_str()))
            .collect();
        summed(&standing, Verdict::Warning)
    })
}

pub(super) fn versions_close(observed: &Observed) -> Vec<Finding> {
    let ours = env!("CARGO_PKG_VERSION");
    each_consumer(observed, |_, consumer| {
        let seen = format!("{}; this command {ours}", consumer.version);
        let is_close = match (series(ours), series(&consumer.version)) {
            (Some((major, minor)), Some((its_major, its_minor))) => {
                major == its_major && minor.abs_diff(its_minor) <= 1
            }
            (None, _) | (_, None) => false,
        };
        (Verdict::Warning.unless(is_close), seen)
    })
}

/// The first two numbers of a version.
fn series(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(['.', '-', '+', ' ']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

pub(super) fn address_known(observed: &Observed) -> Vec<Finding> {
    each_link(observed, |link| {
        if link.addresses.is_empty() {
            let seen = format!("no address; the tunnel is {}", link.tunnel);
            return about(
                &link.cluster,
                Verdict::Warning.unless(link.tunnel == "up"),
                seen,
            );
        }
        about(&link.cluster, Verdict::Good, link.addresses.join(", "))
    })
}

pub(super) fn address_resolves(observed: &Observed) -> Vec<Finding> {
    each_address(observed, |probe| probe.resolved.as_ref().map(|_| None))
}

pub(super) fn address_answers(observed: &Observed) -> Vec<Finding> {
    each_address(observed, |probe| {
        let answered = probe.answered.as_ref();
        answered.map(|took| Some(format!("in {:.1} ms", took.as_secs_f64() * 1e3)))
    })
}

/// What is seen from here counts as an error only while the tunnel is not up: the gateway may see more.
fn each_address(
    observed: &Observed,
    look: impl Fn(&Probe) -> Result<Option<String>, &String>,
) -> Vec<Finding> {
    let mut findings = each_link(observed, |link| {
        let mut seen = Vec::new();
        let (mut good, mut bad) = (0, 0);
        for address in &link.addresses {
            match observed.probes.get(address).map(&look) {
                Some(Ok(detail)) => {
                    good += 1;
                    seen.extend(detail.map(|detail| format!("{address} {detail}")));
                }
                Some(Err(why)) => {
                    bad += 1;
                    seen.push(format!("{address}: {why}"));
                }
                None => {}
            }
        }
        let verdict = match (good, bad) {
            (0, 0) => Verdict::Unseen,
            (_, 0) => Verdict::Good,
            (0, _) if link.tunnel != "up" => Verdict::Bad,
            (_, _) => Verdict::Warning,
        };
        about(&link.cluster, verdict, seen.join(", "))
    });
    // A peer that only dials has no address to look at.
    findings.retain(|finding| finding.subject.is_none() || finding.verdict != Verdict::Unseen);
    findings
}

pub(super) fn link_active(observed: &Observed) -> Vec<Finding> {
    each_link(observed, |link| {
        about(
            &link.cluster,
            Verdict::Warning.unless(link.mode == "active"),
            link.mode.as_str(),
        )
    })
}

pub(super) fn link_mutual(observed: &Observed) -> Vec<Finding> {
    none_stands_on_links(observed, &["CRN078"], Verdict::Bad)
}

pub(super) fn tunnel_up(observed: &Observed) -> Vec<Finding> {
    each_link(observed, |link| {
        let verdict = match (link.tunnel.as_str(), link.mode.as_str()) {
            ("up", _) => Verdict::Good,
            (_, "paused") => Verdict::Unseen,
            ("draining", _) => Verdict::Warning,
            (_, _) => Verdict::Bad,
        };
        about(
            &link.cluster,
            verdict,
            format!("{}, the link is {}", link.tunnel, link.mode),
        )
    })
}

pub(super) fn protocol_common(observed: &Observed) -> Vec<Finding> {
    none_stands_on_links(observed, &["CRN076"], Verdict::Bad)
}

pub(super) fn peer_told(observed: &Observed) -> Vec<Finding> {
    each_link(observed, |link| {
        let verdict = match (link.peering.as_str(), link.mode.as_str()) {
            ("told", _) => Verdict::Good,
            (_, "paused") => Verdict::Unseen,
            ("telling", _) => Verdict::Warning,
            (_, _) => Verdict::Bad,
        };
        about(&link.cluster, verdict, link.peering.as_str())
    })
}

pub(super) fn state_in_sync(observed: &Observed) -> Vec<Finding> {
    none_stands_on_links(observed, &["CRN075", "CRN079"], Verdict::Warning)
}

pub(super) fn rtt_low(observed: &Observed) -> Vec<Finding> {
    each_link(observed, |link| match (link.rtt_us, link.rtt()) {
        (Some(rtt), Some(seen)) => about(
            &link.cluster,
            Verdict::Warning.unless(rtt < RTT_MAX_US),
            seen,
        ),
        (_, _) => about(&link.cluster, Verdict::Unseen, "not measured yet"),
    })
}

pub(super) fn no_flaps(observed: &Observed) -> Vec<Finding> {
    none_stands_on_links(observed, &["CRN077"], Verdict::Warning)
}

pub(super) fn address_class(observed: &Observed) -> Vec<Finding> {
    none_stands_on_links(observed, &["CRN074"], Verdict::Warning)
}

pub(super) fn export_declared(observed: &Observed) -> Vec<Finding> {
    none_stands(observed, &["CRN092"], Verdict::Bad)
}

pub(super) fn export_has_endpoints(observed: &Observed) -> Vec<Finding> {
    from(&observed.exports, |exports| {
        let exports = exports.iter();
        exports
            .map(|export| {
                let verdict = Verdict::Bad.unless(export.endpoints > 0);
                about(&export.service, verdict, export.endpoints.to_string())
            })
            .collect()
    })
}

pub(super) fn export_has_callers(observed: &Observed) -> Vec<Finding> {
    from(&observed.exports, |exports| {
        let exports = exports.iter();
        exports
            .map(|export| {
                if export.open_to.is_empty() {
                    let seen = format!("declared for: {}", export.to.join(", "));
                    return about(&export.service, Verdict::Warning, seen);
                }
                about(&export.service, Verdict::Good, export.open_to.join(", "))
            })
            .collect()
    })
}

pub(super) fn exports_agree(observed: &Observed) -> Vec<Finding> {
    none_stands(observed, &["CRN090"], Verdict::Warning)
}

pub(super) fn import_reachable(observed: &Observed) -> Vec<Finding> {
    from(&observed.imports, |imports| {
        let services: BTreeSet<_> = imports.iter().map(|import| &import.service).collect();
        let services = services.into_iter();
        services
            .map(|service| {
                let of_service = imports.iter().filter(|import| import.service == *service);
                let is_reachable = |peer: &str| {
                    let mut links = observed.status.iter().flat_map(|status| &status.links);
                    links.any(|link| link.cluster == peer && link.is_usable())
                };
                let mut seen = Vec::new();
                let mut is_any = false;
                for import in of_service {
                    let link = is_reachable(&import.from);
                    is_any |= link && import.ready > 0;
                    let link = if link { "reachable" } else { "not reachable" };
                    seen.push(format!("{} {link}, {} ready", import.from, import.ready));
                }
                about(service, Verdict::Bad.unless(is_any), seen.join("; "))
            })
            .collect()
    })
}

pub(super) fn import_fresh(observed: &Observed) -> Vec<Finding> {
    from(&observed.imports, |imports| {
        let stale = imports.iter().filter(|import| import.stale);
        let stale: Vec<_> = stale
            .map(|import| {
                about(
                    &import.service,
                    Verdict::Warning,
                    format!("left out by {}", import.from),
                )
            })
            .collect();
        if stale.is_empty() {
            return vec![found(Verdict::Good, "")];
        }
        stale
    })
}

pub(super) fn offers_accepted(observed: &Observed) -> Vec<Finding> {
    none_stands(observed, &["CRN070"], Verdict::Warning)
}

pub(super) fn entries_valid(observed: &Observed) -> Vec<Finding> {
    none_stands(observed, &["CRN071", "CRN072", "CRN073"], Verdict::Warning)
}

pub(super) fn import_port_given(observed: &Observed) -> Vec<Finding> {
    none_stands(observed, &["CRN091"], Verdict::Bad)
}

pub(super) fn import_port_open(observed: &Observed) -> Vec<Finding> {
    none_stands(observed, &["CRN099"], Verdict::Bad)
}

pub(super) fn leaf_lives(observed: &Observed) -> Vec<Finding> {
    each_certificate(observed, &["control", "gateway"], LEAF_LEFT_MIN)
}

pub(super) fn root_lives(observed: &Observed) -> Vec<Finding> {
    each_certificate(observed, &["root"], ROOT_LEFT_MIN)
}

fn each_certificate(observed: &Observed, holders: &[&str], left_min: i64) -> Vec<Finding> {
    from(&observed.certificates, |certificates| {
        let meant = certificates
            .iter()
            .filter(|one| holders.contains(&one.holder.as_str()));
        meant
            .map(|certificate| {
                let subject = certificate
                    .spiffe_id
                    .as_deref()
                    .unwrap_or(&certificate.holder);
                let (verdict, seen) = lifetime(certificate, observed.now, left_min);
                about(subject, verdict, seen)
            })
            .collect()
    })
}

fn lifetime(certificate: &Certificate, now: i64, left_min: i64) -> (Verdict, String) {
    let left = certificate.not_after.saturating_sub(now);
    if left <= 0 {
        return (Verdict::Bad, "expired".to_owned());
    }
    let seen = match left / HOUR {
        hours @ 0..48 => format!("{hours} hours left"),
        hours => format!("{} days left", hours / 24),
    };
    let is_well = match certificate.renew_by {
        Some(_) => !certificate.is_expiring(now),
        None => left >= left_min,
    };
    (Verdict::Warning.unless(is_well), seen)
}

pub(super) fn peer_root_lives(observed: &Observed) -> Vec<Finding> {
    from(&observed.certificates, |certificates| {
        each_link(observed, |link| {
            let roots = certificates.iter().filter(|one| {
                one.holder == "peer root" && one.peer.as_deref() == Some(&link.cluster)
            });
            match roots.max_by_key(|root| root.not_after) {
                Some(root) => {
                    let (verdict, seen) = lifetime(root, observed.now, ROOT_LEFT_MIN);
                    about(&link.cluster, verdict, seen)
                }
                None => about(&link.cluster, Verdict::Bad, "no root is known"),
            }
        })
    })
}

pub(super) fn bundles_taken(observed: &Observed) -> Vec<Finding> {
    none_stands(observed, &["CRN086", "CRN087", "CRN088"], Verdict::Warning)
}
