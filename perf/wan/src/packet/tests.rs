use super::*;

const ROUTER: Router = Router {
    v4: Ipv4Addr::new(192, 0, 2, 1),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
};

/// An IPv4 packet; `payload` follows the header.
pub(crate) fn v4(protocol: u8, source: [u8; 4], target: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + payload.len()).unwrap();
    let mut packet = vec![0x45, 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend(source);
    packet.extend(target);
    let sum = checksum(&[&packet]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// An IPv6 packet from 2001:db8::a to 2001:db8::b.
fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([next, 64]);
    for last in [0x0a, 0x0b] {
        packet.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).octets());
    }
    packet.extend(payload);
    packet
}

#[test]
fn udp_is_found_behind_extension_headers() {
    let plain = v6(17, &[0; 8]);
    // Hop-by-hop of 8 bytes, then a fragment header, then UDP.
    let hidden = v6(0, &[44, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 1, 9, 9]);
    assert!(view(&plain).unwrap().is_udp);
    let found = view(&hidden).unwrap();
    assert!(found.is_udp);
    assert_eq!(found.payload_at, 56);
    assert!(!view(&v6(6, &[0; 20])).unwrap().is_udp);
}

#[test]
fn link_local_traffic_is_known() {
    let is_local = |packet: &[u8]| view(packet).unwrap().is_local;
    assert!(!is_local(&v4(17, [10, 0, 0, 1], [10, 0, 0, 2], &[])));
    assert!(is_local(&v4(2, [10, 0, 0, 1], [224, 0, 0, 22], &[])));
    assert!(!is_local(&v4(17, [10, 0, 0, 1], [239, 1, 1, 1], &[])));
    assert!(is_local(&v4(17, [169, 254, 0, 1], [10, 0, 0, 2], &[])));
    let mut router_solicitation = v6(58, &[133, 0, 0, 0]);
    router_solicitation[24..40]
        .copy_from_slice(&Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2).octets());
    assert!(is_local(&router_solicitation));
    assert!(!is_local(&v6(58, &[128, 0, 0, 0])));
}

#[test]
fn rubbish_is_no_packet() {
    assert_eq!(view(&[]), None);
    assert_eq!(view(&[0x45; 10]), None);
    assert_eq!(view(&[0x60; 39]), None);
    assert_eq!(view(&[0x12; 60]), None);
    // A chain of headers that leads out of the packet.
    let lost = v6(0, &[0, 255]);
    assert_eq!(
        view(&lost).map(|view| (view.is_udp, view.payload_at <= lost.len())),
        Some((false, true))
    );
}

#[test]
fn too_big_v4_is_a_valid_answer_to_the_sender() {
    let packet = v4(6, [10, 0, 0, 1], [10, 0, 0, 2], &[7; 1_400]);
    let answer = ROUTER.too_big(&packet, 1_280).unwrap();
    assert_eq!(answer.len(), 576);
    assert_eq!(checksum(&[&answer[..20]]), 0);
    assert_eq!(checksum(&[&answer[20..]]), 0);
    assert_eq!(answer[12..20], [192, 0, 2, 1, 10, 0, 0, 1]);
    assert_eq!(answer[20..22], [3, 4]);
    assert_eq!(answer[26..28], 1_280_u16.to_be_bytes());
    assert_eq!(answer[28..], packet[..548]);
}

#[test]
fn too_big_v6_is_a_valid_answer_to_the_sender() {
    let packet = v6(6, &[7; 1_400]);
    let answer = ROUTER.too_big(&packet, 1_280).unwrap();
    assert_eq!(answer.len(), 1_280);
    let length = u32::try_from(answer.len() - 40).unwrap().to_be_bytes();
    assert_eq!(
        checksum(&[&answer[8..40], &length, &[0, 0, 0, 58], &answer[40..]]),
        0
    );
    assert_eq!(answer[24..40], packet[8..24]);
    assert_eq!(answer[40..42], [2, 0]);
    assert_eq!(answer[44..48], 1_280_u32.to_be_bytes());
}

#[test]
fn icmp_errors_are_not_answered() {
    assert_eq!(
        ROUTER.too_big(&v4(1, [10, 0, 0, 1], [10, 0, 0, 2], &[3; 90]), 68),
        None
    );
    assert!(
        ROUTER
            .too_big(&v4(1, [10, 0, 0, 1], [10, 0, 0, 2], &[8; 90]), 68)
            .is_some()
    );
    assert_eq!(ROUTER.too_big(&v6(58, &[1; 90]), 1_280), None);
    assert!(ROUTER.too_big(&v6(58, &[128; 90]), 1_280).is_some());
}
