//! What the file says beside what is declared elsewhere, which wins.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::Fixed;
use crate::cluster::Declared;

/// Both together, and what stands in both.
pub(super) fn merge(fixed: &Fixed, file: &Declared) -> (Declared, Vec<String>) {
    let mut doubles = Vec::new();
    let mut merged = fixed.declared.clone();
    add(
        &mut merged.services,
        &file.services,
        "the service",
        &fixed.place,
        &mut doubles,
    );
    add(
        &mut merged.exports,
        &file.exports,
        "the export of",
        &fixed.place,
        &mut doubles,
    );
    for (cluster, link) in &file.links {
        let domain = &link.trust_domain;
        let taken = merged
            .links
            .iter()
            .find(|(_, other)| other.trust_domain == *domain);
        match taken {
            Some((other, _)) if other != cluster => doubles.push(format!(
                "the link with `{cluster}` has the trust domain of the link with `{other}` in {}, which is used",
                fixed.place
            )),
            Some(_) | None => {
                let one = BTreeMap::from([(cluster.clone(), link.clone())]);
                add(&mut merged.links, &one, "the link with", &fixed.place, &mut doubles);
            }
        }
    }
    for ((service, port), import) in &file.imports {
        let key = (service.clone(), *port);
        if merged.imports.contains_key(&key) {
            doubles.push(double(
                "the import of",
                &format!("{service}:{port}"),
                &fixed.place,
            ));
        } else {
            merged.imports.insert(key, import.clone());
        }
    }
    merged.denied.extend(file.denied.iter().cloned());
    (merged, doubles)
}

fn add<K: Ord + Clone + Display, T: Clone>(
    merged: &mut BTreeMap<K, T>,
    file: &BTreeMap<K, T>,
    what: &str,
    place: &str,
    doubles: &mut Vec<String>,
) {
    for (name, one) in file {
        if merged.contains_key(name) {
            doubles.push(double(what, &name.to_string(), place));
        } else {
            merged.insert(name.clone(), one.clone());
        }
    }
}

fn double(what: &str, name: &str, place: &str) -> String {
    format!("{what} `{name}` stands here and in {place}, which is used; remove one of the two")
}
