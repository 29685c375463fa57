//! What changed from one route table to the next, one line per route.

use std::fmt;
use std::sync::Arc;

use crate::route::{Candidate, Route};
use crate::table::RouteTable;

#[cfg(test)]
mod tests;

/// The changes from one table to another, each in the order of its table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableDiff {
    /// Routes only the new table has.
    pub added: Vec<Arc<Route>>,
    /// Routes only the old table had.
    pub removed: Vec<Arc<Route>>,
    /// Routes of the same name and protocol that differ otherwise.
    pub changed: Vec<RouteChange>,
}

/// One route before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteChange {
    /// As it was.
    pub before: Arc<Route>,
    /// As it is.
    pub after: Arc<Route>,
}

impl TableDiff {
    /// Whether both tables hold the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// Compares two tables, in time proportional to their size.
#[must_use]
pub fn diff(before: &RouteTable, after: &RouteTable) -> TableDiff {
    let mut diff = TableDiff::default();
    for route in after.iter() {
        match before.by_name(&route.name, route.protocol) {
            None => diff.added.push(Arc::clone(route)),
            Some(old) if Arc::ptr_eq(old, route) || old == route => {}
            Some(old) => {
                let (before, after) = (Arc::clone(old), Arc::clone(route));
                diff.changed.push(RouteChange { before, after });
            }
        }
    }
    let is_gone = |route: &&Arc<Route>| after.by_name(&route.name, route.protocol).is_none();
    diff.removed.extend(before.iter().filter(is_gone).cloned());
    diff
}

/// `+` added, `-` removed, `~` changed; one line each, without a line break at the end.
impl fmt::Display for TableDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line_break = "";
        for route in &self.added {
            let count = route.candidates.len();
            write!(
                f,
                "{line_break}+ {}/{} candidates: {count}",
                route.name, route.protocol
            )?;
            line_break = "\n";
        }
        for route in &self.removed {
            write!(f, "{line_break}- {}/{}", route.name, route.protocol)?;
            line_break = "\n";
        }
        for change in &self.changed {
            write!(f, "{line_break}~ {change}")?;
            line_break = "\n";
        }
        Ok(())
    }
}

/// The route and what differs, on one line.
impl fmt::Display for RouteChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{} {}",
            self.after.name,
            self.after.protocol,
            self.details().join(", ")
        )
    }
}

impl RouteChange {
    /// What differs, one entry each.
    fn details(&self) -> Vec<String> {
        let Self { before, after } = self;
        let mut details = Vec::new();
        if before.import_port != after.import_port {
            details.push(format!("import port: {} -> {}", port(before), port(after)));
        }
        if before.tls != after.tls {
            details.push(format!("tls: {} -> {}", before.tls, after.tls));
        }
        if before.replay != after.replay {
            details.push(format!("replay: {} -> {}", before.replay, after.replay));
        }
        let gained = after
            .sni_names
            .iter()
            .filter(|name| !before.sni_names.contains(name));
        details.extend(gained.map(|name| format!("+{name}")));
        let lost = before
            .sni_names
            .iter()
            .filter(|name| !after.sni_names.contains(name));
        details.extend(lost.map(|name| format!("-{name}")));
        for new in &after.candidates {
            match before
                .candidates
                .iter()
                .find(|old| old.target == new.target)
            {
                None => details.push(format!("+{}", new.target)),
                Some(old) => candidate_details(old, new, &mut details),
            }
        }
        let is_gone =
            |old: &&Candidate| after.candidates.iter().all(|new| new.target != old.target);
        let lost = before.candidates.iter().filter(is_gone);
        details.extend(lost.map(|old| format!("-{}", old.target)));
        if details.is_empty() {
            details.push("order of candidates or server names".to_owned());
        }
        details
    }
}

fn port(route: &Route) -> String {
    route
        .import_port
        .map_or_else(|| "none".to_owned(), |port| port.to_string())
}

fn candidate_details(old: &Candidate, new: &Candidate, details: &mut Vec<String>) {
    let target = &new.target;
    if old.weight != new.weight {
        details.push(format!("{target} weight: {} -> {}", old.weight, new.weight));
    }
    if old.priority != new.priority {
        details.push(format!(
            "{target} priority: {} -> {}",
            old.priority, new.priority
        ));
    }
    if old.locality != new.locality {
        details.push(format!("{target} moved"));
    }
}
