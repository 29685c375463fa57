//! A core in cluster `a`, and short ways to say what is around it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use corinth_model::{
    AddressSource, Candidate, ClusterName, Direct, Endpoint, Export, ExportTable, Failure,
    GatewayId, Locality, Peer, PortNumber, Protocol, Refusal, Replay, Route, RouteName, RouteTable,
    ServiceId, Slot, SniName, Tables, Target, TrustDomain, ZONE,
};

use crate::{
    Action, Admission, By, Core, DirectClient, Event, LinkState, Opening, Outcome, Own, Plan,
    Request, Settings, Standing,
};

/// An endpoint where there is an address, else a cluster.
pub(crate) fn target(text: &str) -> Target {
    match text.parse() {
        Ok(address) => Target::Endpoint(address),
        Err(_) => Target::Cluster(cluster(text)),
    }
}

pub(crate) fn cluster(text: &str) -> ClusterName {
    ClusterName::parse(text).unwrap()
}

/// `80.pay.shop`, without the zone.
pub(crate) fn name(text: &str) -> RouteName {
    RouteName::parse(&format!("{text}.{ZONE}")).unwrap()
}

pub(crate) fn gateway_of(cluster: &str) -> GatewayId {
    GatewayId {
        trust_domain: TrustDomain::parse(&format!("{cluster}.corinth.internal")).unwrap(),
        slot: Slot::parse("0").unwrap(),
    }
}

pub(crate) fn zone(zone: &str) -> Locality {
    Locality::new(Some("eu"), Some(zone), None).unwrap()
}

/// What an operator configured; the last route or export is the one that the next call adds to.
#[derive(Default)]
pub(crate) struct World {
    peers: BTreeMap<ClusterName, Peer>,
    routes: Vec<Route>,
    exports: Vec<Export>,
    revision: u64,
}

pub(crate) fn world() -> World {
    World::default()
}

impl World {
    pub(crate) fn peer(self, peer: &str) -> Self {
        self.peer_with(peer, 1000)
    }

    pub(crate) fn peer_with(self, peer: &str, max_streams: u32) -> Self {
        self.peer_under(peer, peer, max_streams)
    }

    pub(crate) fn peer_under(mut self, peer: &str, domain: &str, max_streams: u32) -> Self {
        let trust_domain = gateway_of(domain).trust_domain;
        self.peers.insert(
            cluster(peer),
            Peer {
                trust_domain,
                max_streams,
            },
        );
        self
    }

    pub(crate) fn revision(mut self, revision: u64) -> Self {
        self.revision = revision;
        self
    }

    pub(crate) fn route(mut self, text: &str) -> Self {
        self.routes.push(Route {
            name: name(text),
            protocol: Protocol::Tcp,
            import_port: None,
            sni_names: Vec::new(),
            tls: false,
            replay: Replay::Never,
            candidates: Vec::new(),
        });
        self
    }

    pub(crate) fn import_port(mut self, port: u16) -> Self {
        self.routes.last_mut().unwrap().import_port = PortNumber::new(port);
        self
    }

    pub(crate) fn candidate(mut self, candidate: Candidate) -> Self {
        let route = self.routes.last_mut().unwrap();
        route.candidates.push(candidate);
        self
    }

    pub(crate) fn to(self, text: &str) -> Self {
        self.weighted(text, 1)
    }

    pub(crate) fn weighted(self, text: &str, weight: u32) -> Self {
        self.candidate(Candidate {
            target: target(text),
            weight,
            priority: 0,
            locality: Locality::default(),
        })
    }

    pub(crate) fn prioritised(self, text: &str, priority: u8) -> Self {
        self.candidate(Candidate {
            target: target(text),
            weight: 1,
            priority,
            locality: Locality::default(),
        })
    }

    pub(crate) fn in_zone(self, text: &str, place: &str) -> Self {
        self.candidate(Candidate {
            target: target(text),
            weight: 1,
            priority: 0,
            locality: zone(place),
        })
    }

    pub(crate) fn export(mut self, service: &str, port: u16) -> Self {
        self.exports.push(Export {
            service: ServiceId::parse(service).unwrap(),
            port: PortNumber::new(port).unwrap(),
            protocol: Protocol::Tcp,
            endpoints: Vec::new(),
            audience: std::collections::BTreeSet::new(),
            sni_names: Vec::new(),
            tls: true,
            direct: None,
            max_streams: None,
        });
        self
    }

    pub(crate) fn for_peer(mut self, peer: &str) -> Self {
        let export = self.exports.last_mut().unwrap();
        export.audience.insert(cluster(peer));
        self
    }

    pub(crate) fn max_streams(mut self, limit: u32) -> Self {
        self.exports.last_mut().unwrap().max_streams = Some(limit);
        self
    }

    pub(crate) fn udp(mut self) -> Self {
        let export = self.exports.last_mut().unwrap();
        export.protocol = Protocol::Udp;
        export.tls = false;
        self
    }

    pub(crate) fn direct(mut self, direct: Direct) -> Self {
        self.exports.last_mut().unwrap().direct = Some(direct);
        self
    }

    pub(crate) fn at(self, address: &str) -> Self {
        self.at_place(address, Locality::default())
    }

    pub(crate) fn at_zone(self, address: &str, place: &str) -> Self {
        self.at_place(address, zone(place))
    }

    fn at_place(mut self, address: &str, locality: Locality) -> Self {
        let address = address.parse().unwrap();
        let endpoint = Endpoint::new(address, locality, AddressSource::OwnConfig).unwrap();
        self.exports.last_mut().unwrap().endpoints.push(endpoint);
        self
    }

    pub(crate) fn tables(self) -> Arc<Tables> {
        let own = cluster("a");
        let routes = RouteTable::build(&own, self.routes).unwrap();
        let exports = ExportTable::build(&own, self.exports).unwrap();
        let tables = Tables::build(own, self.peers, routes, exports, self.revision);
        Arc::new(tables.unwrap())
    }

    /// A core in zone `1` that uses these tables, with every link up and nothing left to poll.
    pub(crate) fn lab(self) -> Lab {
        self.lab_with(Settings::default(), 7)
    }

    pub(crate) fn lab_with(self, settings: Settings, seed: u64) -> Lab {
        #[expect(clippy::disallowed_methods, reason = "the only way to some instant")]
        let now = Instant::now();
        let own = Own {
            cluster: cluster("a"),
            locality: zone("1"),
        };
        let mut lab = Lab {
            core: Core::new(settings, own, seed, now),
            start: now,
            now,
        };
        let peers: Vec<ClusterName> = self.peers.keys().cloned().collect();
        lab.apply(self);
        for peer in peers {
            lab.core.handle_link(&peer, LinkState::Up, now);
        }
        lab.events();
        lab.actions();
        lab
    }
}

/// A core and the time it is told.
pub(crate) struct Lab {
    pub(crate) core: Core,
    start: Instant,
    pub(crate) now: Instant,
}

impl Lab {
    pub(crate) fn apply(&mut self, world: World) {
        drop(self.core.apply(world.tables(), self.now));
        self.core.check();
    }

    pub(crate) fn plan(&mut self, intake: By) -> Result<Plan, Refusal> {
        let request = Request {
            intake,
            protocol: Protocol::Tcp,
            source: IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let plan = self.core.route(&request, self.now);
        self.core.check();
        plan
    }

    /// The attempts of a plan by name, in order.
    pub(crate) fn route(&mut self, text: &str) -> Vec<String> {
        let plan = self.plan(By::Name(name(text))).unwrap();
        let attempts = plan.attempts.iter();
        attempts.map(|attempt| attempt.target.to_string()).collect()
    }

    /// The first attempt of a plan by name.
    pub(crate) fn first(&mut self, text: &str) -> String {
        self.route(text).remove(0)
    }

    pub(crate) fn refusal(&mut self, intake: By) -> Refusal {
        self.plan(intake).unwrap_err()
    }

    pub(crate) fn report(&mut self, route: &str, text: &str, outcome: Outcome) {
        let target = target(text);
        self.core
            .report(&name(route), Protocol::Tcp, &target, outcome, self.now);
        self.core.check();
    }

    pub(crate) fn succeed(&mut self, route: &str, text: &str) {
        let after = Duration::from_millis(1);
        self.report(route, text, Outcome::Accepted { after });
    }

    pub(crate) fn fail(&mut self, route: &str, text: &str, times: usize) {
        for _ in 0..times {
            self.report(route, text, Outcome::Failed(Failure::EndpointRefused));
        }
    }

    pub(crate) fn standing(&self, route: &str, text: &str) -> Standing {
        self.core
            .standing(&name(route), Protocol::Tcp, &target(text))
    }

    pub(crate) fn link(&mut self, peer: &str, state: LinkState) {
        self.core.handle_link(&cluster(peer), state, self.now);
        self.core.check();
    }

    /// Lets time pass, waking the core as it asks to be.
    pub(crate) fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((next, _)) = self.core.poll_timeout()
            && next <= end
        {
            self.now = self.now.max(next);
            self.core.handle_timeout(self.now);
            self.core.check();
        }
        self.now = end;
    }

    /// The time since the lab was built.
    pub(crate) fn clock(&self, instant: Instant) -> Duration {
        instant - self.start
    }

    pub(crate) fn admit(&mut self, peer: &str, text: &str) -> Result<Admission, Refusal> {
        self.admit_after(peer, text, 0)
    }

    pub(crate) fn admit_after(
        &mut self,
        peer: &str,
        text: &str,
        hops: u8,
    ) -> Result<Admission, Refusal> {
        let opening = Opening {
            route: name(text),
            protocol: Protocol::Tcp,
            hops,
        };
        let admission = self.core.admit(&gateway_of(peer), &opening, self.now);
        self.core.check();
        admission
    }

    pub(crate) fn admit_direct(
        &mut self,
        sni: &str,
        client: &DirectClient,
    ) -> Result<Admission, Refusal> {
        let sni = SniName::parse(sni).unwrap();
        let admission = self.core.admit_direct(&sni, client, self.now);
        self.core.check();
        admission
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.core.poll_event()).collect()
    }

    pub(crate) fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.core.poll_action()).collect()
    }
}
