//! What the file says beside what is declared elsewhere, which wins.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
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
    for (key, import) in &file.imports {
        match merged.imports.entry(key.clone()) {
            Entry::Occupied(_) => {
                let name = format!("{}:{}", key.0, key.1);
                doubles.push(double("the import of", &name, &fixed.place));
            }
            Entry::Vacant(free) => {
                free.insert(import.clone());
            }
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
        match merged.entry(name.clone()) {
            Entry::Occupied(_) => doubles.push(double(what, &name.to_string(), place)),
            Entry::Vacant(free) => {
                free.insert(one.clone());
            }
        }
    }
}

fn double(what: &str, name: &str, place: &str) -> String {
    format!("{what} `{name}` stands here and in {place}, which is used; remove one of the two")
}
