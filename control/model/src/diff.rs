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
        let Self { before, after } = self;
        write!(f, "{}/{}", after.name, after.protocol)?;
        if before.import_port != after.import_port {
            let (old, new) = (port(before), port(after));
            write!(f, " import port: {old} -> {new}")?;
        }
        if before.sni_names != after.sni_names {
            let (old, new) = (before.sni_names.len(), after.sni_names.len());
            write!(f, " server names: {old} -> {new}")?;
        }
        if before.tls != after.tls {
            write!(f, " tls: {} -> {}", before.tls, after.tls)?;
        }
        if before.replay != after.replay {
            write!(f, " replay: {:?} -> {:?}", before.replay, after.replay)?;
        }
        for new in &after.candidates {
            match before
                .candidates
                .iter()
                .find(|old| old.target == new.target)
            {
                None => write!(f, " +{}", new.target)?,
                Some(old) => write_candidate(f, old, new)?,
            }
        }
        for old in &before.candidates {
            if after.candidates.iter().all(|new| new.target != old.target) {
                write!(f, " -{}", old.target)?;
            }
        }
        Ok(())
    }
}

fn port(route: &Route) -> String {
    route
        .import_port
        .map_or_else(|| "none".to_owned(), |port| port.to_string())
}

fn write_candidate(f: &mut fmt::Formatter<'_>, old: &Candidate, new: &Candidate) -> fmt::Result {
    let target = &new.target;
    if old.weight != new.weight {
        write!(f, " {target} weight: {} -> {}", old.weight, new.weight)?;
    }
    if old.priority != new.priority {
        write!(
            f,
            " {target} priority: {} -> {}",
            old.priority, new.priority
        )?;
    }
    if old.locality != new.locality {
        write!(f, " {target} moved")?;
    }
    Ok(())
}
