//! What the kernel tells through netlink: facts about one connection, the device it leaves by, and its offloads.
//!
//! One question, one answer; whatever is missing or strange in an answer is an absent fact.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    time::Duration,
};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send,
    socket_with, sockopt,
};

use crate::socket::TcpFacts;

mod attributes;

use attributes::{Attributes, Question, u16_at, u32_at};

/// The kernel answers at once, or not at all.
const PATIENCE: Duration = Duration::from_secs(1);

/// The longest answer is a list of offloads.
const ANSWER_MAX_BYTES: usize = 64 << 10;

/// `NETLINK_ROUTE` is number zero, which is also no number.
const ROUTE: Option<Protocol> = None;

const NLMSG_ERROR: u16 = 2;
const HEADER_BYTES: usize = 16;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const DIAG_MESSAGE_BYTES: usize = 72;
const INET_DIAG_INFO: u16 = 2;
const ANY_STATE: u32 = u32::MAX;

const RTM_GETLINK: u16 = 18;
const RTM_GETROUTE: u16 = 26;
const ROUTE_MESSAGE_BYTES: usize = 12;
const LINK_MESSAGE_BYTES: usize = 16;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_QDISC: u16 = 6;

const GENL_ID_CTRL: u16 = 16;
const GENL_HEADER_BYTES: usize = 4;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const ETHTOOL_MSG_FEATURES_GET: u8 = 11;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
const ETHTOOL_A_FEATURES_ACTIVE: u16 = 4;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BITS_BIT: u16 = 1;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;

/// The offloads that matter to throughput, by the kernel's names.
const OFFLOADS: &[&str] = &[
    "tx-scatter-gather",
    "tx-tcp-segmentation",
    "tx-tcp6-segmentation",
    "tx-generic-segmentation",
    "tx-udp-segmentation",
    "tx-checksum-ip-generic",
    "tx-checksum-ipv4",
    "tx-checksum-ipv6",
    "rx-checksum",
    "rx-gro",
    "rx-lro",
    "rx-gro-hw",
    "tls-hw-tx-offload",
];

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Device {
    /// Its name.
    pub name: Option<String>,
    /// Its MTU.
    pub mtu: Option<u32>,
    /// Its queueing discipline.
    pub qdisc: Option<String>,
    /// Its offloads that are on.
    pub offloads: Vec<String>,
}

/// What the kernel says about a TCP connection of this network namespace.
pub fn tcp_facts(local: SocketAddr, remote: SocketAddr) -> Option<TcpFacts> {
    let (local, remote) = (canonical(local), canonical(remote));
    let mut question = Question::new(SOCK_DIAG_BY_FAMILY);
    question.put(&[family(local.ip()), 6, 1 << (INET_DIAG_INFO - 1), 0]);
    question.put(&ANY_STATE.to_ne_bytes());
    question.put(&local.port().to_be_bytes());
    question.put(&remote.port().to_be_bytes());
    question.put(&sixteen_bytes(local.ip()));
    question.put(&sixteen_bytes(remote.ip()));
    question.put(&0_u32.to_ne_bytes());
    question.put(&[0xff; 8]);
    let answer = ask(Some(netlink::SOCK_DIAG), question).ok()?;
    let attributes = Attributes::new(answer.get(DIAG_MESSAGE_BYTES..)?);
    read_tcp_info(attributes.value_of(INET_DIAG_INFO)?)
}

/// `struct tcp_info`, which grows only at its end.
fn read_tcp_info(info: &[u8]) -> Option<TcpFacts> {
    let segment_bytes = u32_at(info, 16)?;
    let window_segments = u32_at(info, 80)?;
    Some(TcpFacts {
        retransmits: u32_at(info, 100)?.into(),
        window_bytes: u64::from(window_segments) * u64::from(segment_bytes),
        segment_bytes,
    })
}

/// The device by which packets to this address leave.
pub fn device_towards(address: IpAddr) -> Option<Device> {
    let index = route_device(address.to_canonical()).ok()??;
    let mut device = link(index)?;
    device.offloads = offloads(index).unwrap_or_default();
    Some(device)
}

fn route_device(address: IpAddr) -> io::Result<Option<u32>> {
    let bytes = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let mut question = Question::new(RTM_GETROUTE);
    let mut message = [0; ROUTE_MESSAGE_BYTES];
    message[0] = family(address);
    message[1] = (bytes.len() * 8) as u8;
    question.put(&message);
    question.put_attribute(RTA_DST, &bytes);
    let answer = ask(ROUTE, question)?;
    let attributes = Attributes::new(answer.get(ROUTE_MESSAGE_BYTES..).unwrap_or_default());
    Ok(attributes
        .value_of(RTA_OIF)
        .and_then(|index| u32_at(index, 0)))
}

fn link(index: u32) -> Option<Device> {
    let mut question = Question::new(RTM_GETLINK);
    let mut message = [0; LINK_MESSAGE_BYTES];
    message[4..8].copy_from_slice(&index.to_ne_bytes());
    question.put(&message);
    let answer = ask(ROUTE, question).ok()?;
    let attributes = Attributes::new(answer.get(LINK_MESSAGE_BYTES..)?);
    Some(Device {
        name: attributes.value_of(IFLA_IFNAME).map(text),
        mtu: attributes.value_of(IFLA_MTU).and_then(|mtu| u32_at(mtu, 0)),
        qdisc: attributes.value_of(IFLA_QDISC).map(text),
        offloads: Vec::new(),
    })
}

fn offloads(index: u32) -> Option<Vec<String>> {
    let mut question = Question::new(ethtool_family()?);
    question.put(&[ETHTOOL_MSG_FEATURES_GET, 1, 0, 0]);
    question.put_nested(
        ETHTOOL_A_FEATURES_HEADER,
        ETHTOOL_A_HEADER_DEV_INDEX,
        &index.to_ne_bytes(),
    );
    let answer = ask(Some(netlink::GENERIC), question).ok()?;
    let attributes = Attributes::new(answer.get(GENL_HEADER_BYTES..)?);
    let active = Attributes::new(attributes.value_of(ETHTOOL_A_FEATURES_ACTIVE)?);
    let bits = Attributes::new(active.value_of(ETHTOOL_A_BITSET_BITS)?);
    let names = bits
        .filter(|(kind, _)| *kind == ETHTOOL_A_BITSET_BITS_BIT)
        .filter_map(|(_, bit)| Attributes::new(bit).value_of(ETHTOOL_A_BITSET_BIT_NAME))
        .map(text);
    Some(
        names
            .filter(|name| OFFLOADS.contains(&name.as_str()))
            .collect(),
    )
}

fn ethtool_family() -> Option<u16> {
    let mut question = Question::new(GENL_ID_CTRL);
    question.put(&[CTRL_CMD_GETFAMILY, 1, 0, 0]);
    question.put_attribute(CTRL_ATTR_FAMILY_NAME, b"ethtool\0");
    let answer = ask(Some(netlink::GENERIC), question).ok()?;
    let attributes = Attributes::new(answer.get(GENL_HEADER_BYTES..)?);
    u16_at(attributes.value_of(CTRL_ATTR_FAMILY_ID)?, 0)
}

/// Asks one question; the body of the answer.
fn ask(protocol: Option<Protocol>, question: Question) -> io::Result<Vec<u8>> {
    let socket: OwnedFd = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        protocol,
    )?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
    send(&socket, &question.finish(), SendFlags::empty())?;
    let mut answer = vec![0; ANSWER_MAX_BYTES];
    let (length, _) = recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
    answer.truncate(length);
    let is_error = u16_at(&answer, 4) == Some(NLMSG_ERROR);
    match u32_at(&answer, 0) {
        Some(whole) if !is_error && whole as usize <= length && length >= HEADER_BYTES => {
            answer.truncate(whole as usize);
            Ok(answer.split_off(HEADER_BYTES.min(answer.len())))
        }
        Some(_) | None => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn family(address: IpAddr) -> u8 {
    let family = match address {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    family.as_raw() as u8
}

fn sixteen_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            bytes
        }
        IpAddr::V6(address) => address.octets(),
    }
}

fn text(bytes: &[u8]) -> String {
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_over_loopback_is_known_to_the_kernel() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let facts = tcp_facts(stream.local_addr().unwrap(), stream.peer_addr().unwrap()).unwrap();
        assert!(
            facts.segment_bytes > 500 && facts.window_bytes >= facts.segment_bytes.into(),
            "{facts:?}"
        );
        assert_eq!(facts.retransmits, 0);
    }

    #[test]
    fn a_connection_that_does_not_exist_has_no_facts() {
        let nowhere = "192.0.2.1:9".parse().unwrap();
        assert_eq!(tcp_facts(nowhere, nowhere), None);
    }

    #[test]
    fn packets_to_this_machine_leave_by_the_loopback_device() {
        let device = device_towards(IpAddr::from([127, 0, 0, 1])).unwrap();
        assert_eq!(device.name.as_deref(), Some("lo"));
        assert!(device.mtu.unwrap() >= 1_280);
    }

    #[test]
    fn a_short_answer_has_no_facts() {
        assert_eq!(read_tcp_info(&[0; 100]), None);
        let mut info = [0; 104];
        info[16] = 10;
        info[80] = 3;
        info[100] = 7;
        let expected = TcpFacts {
            retransmits: 7,
            window_bytes: 30,
            segment_bytes: 10,
        };
        assert_eq!(read_tcp_info(&info), Some(expected));
    }
}
