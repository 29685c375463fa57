//! What the file says after a change.

use corinth_model::ClusterName;

use super::Fixed;
use crate::cluster::{Audience, Declared, Write, WriteError};

/// What a change puts into the file, alone; nothing if it only takes something out.
pub(super) fn put(change: &Write) -> Declared {
    let mut put = Declared::default();
    match change.clone() {
        Write::Link(cluster, link) => drop(put.links.insert(cluster, *link)),
        Write::Service(service, declared) => drop(put.services.insert(service, declared)),
        Write::Export(service, Some(export)) => drop(put.exports.insert(service, export)),
        Write::Deny(who) => drop(put.denied.insert(who)),
        Write::Unlink(_) | Write::Export(_, None) | Write::Lift(_) => {}
    }
    put
}

/// `file` with the change made.
///
/// # Errors
/// If it is about something that is declared elsewhere or nowhere.
pub(super) fn apply(file: &Declared, fixed: &Fixed, change: Write) -> Result<Declared, WriteError> {
    let elsewhere = |what: String| {
        let place = fixed.place.clone();
        Err(WriteError::ElsewhereDeclared { what, place })
    };
    let mut next = file.clone();
    match change {
        Write::Link(cluster, _) | Write::Unlink(cluster)
            if fixed.declared.links.contains_key(&cluster) =>
        {
            return elsewhere(format!("the link with {cluster}"));
        }
        Write::Service(service, _) if fixed.declared.services.contains_key(&service) => {
            return elsewhere(format!("the service {service}"));
        }
        Write::Export(service, _) if fixed.declared.exports.contains_key(&service) => {
            return elsewhere(format!("the export of {service}"));
        }
        Write::Deny(who) | Write::Lift(who) if fixed.declared.denied.contains(&who) => {
            return elsewhere(format!("that {who} is denied"));
        }
        Write::Link(cluster, link) => {
            let is_same = |(other, one): (&ClusterName, &crate::cluster::DeclaredLink)| {
                *other != cluster && one.trust_domain == link.trust_domain
            };
            if fixed.declared.links.iter().chain(&file.links).any(is_same) {
                let domain = &link.trust_domain;
                return Err(WriteError::Conflict(format!(
                    "another link has the trust domain {domain}"
                )));
            }
            next.links.insert(cluster, *link);
        }
        Write::Unlink(cluster) => {
            if next.links.remove(&cluster).is_none() {
                return Err(WriteError::Unknown(format!("link with {cluster}")));
            }
            for export in next.exports.values_mut() {
                if let Audience::Only(clusters) = &mut export.to {
                    clusters.remove(&cluster);
                }
            }
        }
        Write::Service(service, declared) => {
            next.services.insert(service, declared);
        }
        Write::Export(service, Some(export)) => {
            next.exports.insert(service, export);
        }
        Write::Export(service, None) => {
            if next.exports.remove(&service).is_none() {
                return Err(WriteError::Unknown(format!("export of {service}")));
            }
        }
        Write::Deny(who) => {
            next.denied.insert(who);
        }
        Write::Lift(who) => {
            if !next.denied.remove(&who) {
                return Err(WriteError::Unknown(format!("denial of {who}")));
            }
        }
    }
    Ok(next)
}
