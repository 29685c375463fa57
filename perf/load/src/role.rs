//! Which connection of a test does what. Both sides number connections the same way.

use crate::spec::{Direction, TestSpec, Workload};

/// What a data connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The client sends a stream.
    Up,
    /// The server sends a stream.
    Down,
    /// The server answers what the client asks.
    Answers,
}

/// The role of the connection of this number; `None` if the test has no such connection.
pub fn role(spec: &TestSpec, connection: u32) -> Option<Role> {
    let asking = asking(spec);
    if connection < asking {
        return Some(Role::Answers);
    }
    way(spec.direction, connection - asking, streams_each_way(spec))
}

/// Which way the datagrams of the flow of this number go; `None` if the test has no such flow.
pub fn flow_role(spec: &TestSpec, flow: u32) -> Option<Role> {
    match spec.workload {
        Workload::Udp => way(spec.direction, flow, spec.connections),
        Workload::Stream
        | Workload::Rr
        | Workload::Crr
        | Workload::Idle
        | Workload::Http
        | Workload::Mix
        | Workload::Probe => None,
    }
}

/// The numbers of its flows of datagrams.
pub fn flows(spec: &TestSpec) -> impl Iterator<Item = (u32, Role)> {
    (0..spec.connections.saturating_mul(2)).map_while(|flow| Some((flow, flow_role(spec, flow)?)))
}

const fn way(direction: Direction, number: u32, each_way: u32) -> Option<Role> {
    match direction {
        Direction::Up if number < each_way => Some(Role::Up),
        Direction::Down if number < each_way => Some(Role::Down),
        Direction::Both if number < each_way => Some(Role::Up),
        Direction::Both if number - each_way < each_way => Some(Role::Down),
        Direction::Up | Direction::Down | Direction::Both => None,
    }
}

/// The numbers of its streams.
pub fn streams(spec: &TestSpec) -> std::ops::Range<u32> {
    let first = asking(spec);
    let ways = match spec.direction {
        Direction::Up | Direction::Down => 1,
        Direction::Both => 2,
    };
    first..first.saturating_add(streams_each_way(spec).saturating_mul(ways))
}

/// How many connections of TCP it has at once, apart from the control connection.
pub fn connections(spec: &TestSpec) -> u32 {
    streams(spec).end.max(spec.connections)
}

/// How many of its connections ask; those come first.
pub const fn asking(spec: &TestSpec) -> u32 {
    match spec.workload {
        Workload::Stream | Workload::Udp => 0,
        Workload::Rr
        | Workload::Crr
        | Workload::Idle
        | Workload::Http
        | Workload::Mix
        | Workload::Probe => spec.connections,
    }
}

const fn streams_each_way(spec: &TestSpec) -> u32 {
    match spec.workload {
        Workload::Stream => spec.connections,
        Workload::Mix => spec.elephants,
        Workload::Rr
        | Workload::Crr
        | Workload::Udp
        | Workload::Idle
        | Workload::Http
        | Workload::Probe => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_go_the_way_that_was_asked_for() {
        let mut spec = TestSpec::new(Workload::Stream, "host");
        spec.connections = 2;
        let roles = |spec: &TestSpec| (0..5).map(|number| role(spec, number)).collect::<Vec<_>>();
        let (up, down) = (Some(Role::Up), Some(Role::Down));
        assert_eq!(roles(&spec), [up, up, None, None, None]);
        spec.direction = Direction::Down;
        assert_eq!(roles(&spec), [down, down, None, None, None]);
        spec.direction = Direction::Both;
        assert_eq!(roles(&spec), [up, up, down, down, None]);
        assert_eq!(streams(&spec), 0..4);
    }

    #[test]
    fn a_mix_asks_first_and_streams_beside_it() {
        let mut spec = TestSpec::new(Workload::Mix, "host");
        spec.connections = 2;
        assert_eq!(role(&spec, 1), Some(Role::Answers));
        assert_eq!(role(&spec, 2), Some(Role::Up));
        assert_eq!(role(&spec, 3), None);
        assert_eq!(streams(&spec), 2..3);
    }
}
