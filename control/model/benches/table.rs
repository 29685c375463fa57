//! Builds, swaps and asks a table of 100,000 routes, and fails if it is slower than the design allows.
//!
//! `cargo bench -p corinth-model`
#![expect(clippy::print_stdout, reason = "figures are what a benchmark is for")]
#![expect(clippy::disallowed_methods, reason = "measuring needs a clock")]

use std::hint::black_box;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use corinth_model::{
    Candidate, ClusterName, Locality, NameError, Protocol, Replay, Route, RouteName, RouteTable,
    Tables, Target, diff,
};

const ROUTES: u32 = 100_000;
const BUILD_MAX: Duration = Duration::from_secs(1);
const SWAP_MAX: Duration = Duration::from_millis(1);

fn main() -> Result<(), NameError> {
    let own = ClusterName::parse("east")?;
    let (first, second) = (routes(1)?, routes(2)?);

    let started = Instant::now();
    let built = RouteTable::build(&own, first);
    let build = started.elapsed();
    let Ok(table) = built else {
        panic!("the generated routes do not conflict");
    };
    let Ok(next) = RouteTable::build(&own, second) else {
        panic!("the generated routes do not conflict");
    };

    let started = Instant::now();
    let changed = diff(&table, &next).changed.len();
    let compare = started.elapsed();

    let names: Vec<_> = table.iter().map(|route| route.name.clone()).collect();
    let started = Instant::now();
    for name in &names {
        black_box(table.by_name(black_box(name), Protocol::Tcp));
    }
    let look_up = started.elapsed() / ROUTES;

    let current = Mutex::new(tables(&own, table));
    let next = tables(&own, next);
    let started = Instant::now();
    let old = std::mem::replace(
        &mut *current.lock().unwrap_or_else(PoisonError::into_inner),
        next,
    );
    let swap = started.elapsed();

    let started = Instant::now();
    drop(old);
    let free = started.elapsed();

    println!("routes          {ROUTES}");
    println!("build           {build:?} (at most {BUILD_MAX:?})");
    println!("swap            {swap:?} (at most {SWAP_MAX:?})");
    println!("free the old    {free:?} (outside the lock)");
    println!("look-up         {look_up:?}");
    println!("diff            {compare:?} ({changed} changed)");
    assert!(build < BUILD_MAX, "building took too long");
    assert!(swap < SWAP_MAX, "swapping took too long");
    Ok(())
}

/// A large clusterset: as many services as routes, in a hundred namespaces, each in two clusters.
fn routes(weight: u32) -> Result<Vec<Route>, NameError> {
    (0..ROUTES).map(|index| route(index, weight)).collect()
}

fn route(index: u32, weight: u32) -> Result<Route, NameError> {
    let name = format!(
        "443.service-{index}.namespace-{}.svc.clusterset.local",
        index % 100
    );
    let candidate = |cluster: &str| -> Result<Candidate, NameError> {
        let target = Target::Cluster(ClusterName::parse(cluster)?);
        Ok(Candidate {
            target,
            weight,
            priority: 0,
            locality: Locality::default(),
        })
    };
    Ok(Route {
        name: RouteName::parse(&name)?,
        protocol: Protocol::Tcp,
        // Only as many as there are ports to give: 8,000 by default.
        import_port: u16::try_from(index)
            .ok()
            .filter(|index| *index < 8_000)
            .and_then(|index| corinth_model::PortNumber::new(20_000 + index)),
        sni_names: Vec::new(),
        tls: true,
        replay: Replay::Never,
        candidates: vec![candidate("west")?, candidate("north")?],
    })
}

fn tables(own: &ClusterName, routes: RouteTable) -> Arc<Tables> {
    let mut tables = Tables::empty(own.clone());
    tables.routes = routes;
    Arc::new(tables)
}
