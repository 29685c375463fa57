//! As much of an IP packet as a network looks at.

use std::net::{Ipv4Addr, Ipv6Addr};

const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_ICMPV6: u8 = 58;
const IPV4_HEADER_BYTES: usize = 20;
const IPV6_HEADER_BYTES: usize = 40;
const ICMP_HEADER_BYTES: usize = 8;
/// How much of the packet an ICMPv4 error quotes behind its IP header (RFC 1812: as much as fits into 576 bytes).
const QUOTE_V4_BYTES: usize = 576 - IPV4_HEADER_BYTES - ICMP_HEADER_BYTES;
/// The same for IPv6: as much as fits into the smallest MTU.
const QUOTE_V6_BYTES: usize = 1_280 - IPV6_HEADER_BYTES - ICMP_HEADER_BYTES;

/// What a network sees of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    /// Where what is behind the IP headers begins.
    pub(crate) payload_at: usize,
    pub(crate) is_udp: bool,
    /// Neither side of it may be on another network.
    pub(crate) is_local: bool,
}

/// Looks at a packet; `None` if it is not IP.
pub(crate) fn view(packet: &[u8]) -> Option<View> {
    match packet.first()? >> 4 {
        4 => view_v4(packet),
        6 => view_v6(packet),
        _ => None,
    }
}

fn view_v4(packet: &[u8]) -> Option<View> {
    let header_bytes = usize::from(packet[0] & 0x0f) * 4;
    if header_bytes < IPV4_HEADER_BYTES || packet.len() < header_bytes {
        return None;
    }
    let [source, target] = addresses_v4(packet)?;
    Some(View {
        payload_at: header_bytes,
        is_udp: packet[9] == PROTOCOL_UDP,
        is_local: source.is_link_local() || target.is_link_local() || is_local_group_v4(target),
    })
}

fn is_local_group_v4(target: Ipv4Addr) -> bool {
    target.is_broadcast() || target.octets().starts_with(&[224, 0, 0])
}

fn addresses_v4(packet: &[u8]) -> Option<[Ipv4Addr; 2]> {
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let target: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    Some([source.into(), target.into()])
}

fn view_v6(packet: &[u8]) -> Option<View> {
    let [source, target] = addresses_v6(packet)?;
    let (protocol, payload_at) = transport_v6(packet);
    Some(View {
        payload_at,
        is_udp: protocol == Some(PROTOCOL_UDP),
        is_local: source.is_unicast_link_local()
            || target.is_unicast_link_local()
            || source.is_unspecified()
            || (target.is_multicast() && target.octets()[1] & 0x0f <= 2),
    })
}

fn addresses_v6(packet: &[u8]) -> Option<[Ipv6Addr; 2]> {
    let source: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
    let target: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
    Some([source.into(), target.into()])
}

/// Follows the extension headers to the transport.
fn transport_v6(packet: &[u8]) -> (Option<u8>, usize) {
    let mut next = packet[6];
    let mut at = IPV6_HEADER_BYTES;
    loop {
        let bytes = match next {
            // Hop-by-hop, routing, destination options; then fragment.
            0 | 43 | 60 => packet
                .get(at + 1)
                .map(|units| (usize::from(*units) + 1) * 8),
            44 => Some(8),
            _ => return (Some(next), at.min(packet.len())),
        };
        let Some((bytes, following)) = bytes.zip(packet.get(at)) else {
            return (None, at.min(packet.len()));
        };
        next = *following;
        at += bytes;
    }
}

/// Where ICMP errors come from: a router's address towards the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Router {
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
}

impl Router {
    /// "Packet too big", respectively "fragmentation needed", for the sender of `packet`. There is none for what is an
    /// ICMP error itself.
    pub(crate) fn too_big(&self, packet: &[u8], mtu_bytes: u32) -> Option<Vec<u8>> {
        match packet.first()? >> 4 {
            4 => self.too_big_v4(packet, mtu_bytes),
            6 => self.too_big_v6(packet, mtu_bytes),
            _ => None,
        }
    }

    fn too_big_v4(&self, packet: &[u8], mtu_bytes: u32) -> Option<Vec<u8>> {
        let view = view_v4(packet)?;
        let kind = packet.get(view.payload_at).copied();
        // Echo and its reply are the only ICMP messages that may be answered with an error.
        if packet[9] == PROTOCOL_ICMP && !matches!(kind, Some(0 | 8)) {
            return None;
        }
        let [sender, _] = addresses_v4(packet)?;
        let quote = &packet[..packet.len().min(QUOTE_V4_BYTES)];
        let total = IPV4_HEADER_BYTES + ICMP_HEADER_BYTES + quote.len();

        let mut icmp = vec![3, 4, 0, 0, 0, 0];
        icmp.extend(u16::try_from(mtu_bytes).unwrap_or(u16::MAX).to_be_bytes());
        icmp.extend(quote);
        let sum = checksum(&[&icmp]);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());

        let mut header = vec![0x45, 0xc0];
        header.extend(u16::try_from(total).ok()?.to_be_bytes());
        header.extend([0, 0, 0, 0, 64, PROTOCOL_ICMP, 0, 0]);
        header.extend(self.v4.octets());
        header.extend(sender.octets());
        let sum = checksum(&[&header]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header.extend(icmp);
        Some(header)
    }

    fn too_big_v6(&self, packet: &[u8], mtu_bytes: u32) -> Option<Vec<u8>> {
        let view = view_v6(packet)?;
        let is_error = transport_v6(packet).0 == Some(PROTOCOL_ICMPV6)
            && packet.get(view.payload_at).is_some_and(|kind| *kind < 128);
        if is_error {
            return None;
        }
        let [sender, _] = addresses_v6(packet)?;
        let quote = &packet[..packet.len().min(QUOTE_V6_BYTES)];
        let length = u32::try_from(ICMP_HEADER_BYTES + quote.len()).ok()?;

        let mut icmp = vec![2, 0, 0, 0];
        icmp.extend(mtu_bytes.to_be_bytes());
        icmp.extend(quote);
        let below = [0, 0, 0, PROTOCOL_ICMPV6];
        let sum = checksum(&[
            &self.v6.octets(),
            &sender.octets(),
            &length.to_be_bytes(),
            &below,
            &icmp,
        ]);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());

        let mut header = vec![0x60, 0, 0, 0];
        header.extend(u16::try_from(length).ok()?.to_be_bytes());
        header.extend([PROTOCOL_ICMPV6, 64]);
        header.extend(self.v6.octets());
        header.extend(sender.octets());
        header.extend(icmp);
        Some(header)
    }
}

/// The Internet checksum over parts that, but for the last, have even lengths.
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u32 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            let low = pair.get(1).copied().unwrap_or_default();
            sum += u32::from(u16::from_be_bytes([pair[0], low]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    sum = (sum & 0xffff) + (sum >> 16);
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
