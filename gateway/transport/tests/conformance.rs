//! What every transport does, as one list run over each of them.
//!
//! A behaviour is a function over a [`Carrier`](pair::Carrier): it makes a pair of gateways of which only
//! the first can dial, and looks at nothing but the seam. A further transport joins by implementing
//! `Carrier` and one line below.

#![allow(clippy::unwrap_used, reason = "a behaviour that fails panics")]

#[path = "conformance/datagrams.rs"]
mod datagrams;
#[path = "conformance/draining.rs"]
mod draining;
#[path = "conformance/ending.rs"]
mod ending;
#[path = "conformance/flow.rs"]
mod flow;
#[path = "conformance/interleaving.rs"]
mod interleaving;
#[path = "conformance/memory.rs"]
mod memory;
#[path = "conformance/opening.rs"]
mod opening;
#[path = "conformance/pair.rs"]
mod pair;
#[path = "conformance/paths.rs"]
mod paths;
#[path = "conformance/pool.rs"]
mod pool;
#[path = "conformance/proxy.rs"]
mod proxy;
#[path = "conformance/quic.rs"]
mod quic;
#[path = "conformance/quic_abuse.rs"]
mod quic_abuse;
#[path = "conformance/quic_ending.rs"]
mod quic_ending;
#[path = "conformance/quic_floods.rs"]
mod quic_floods;
#[path = "conformance/quic_frames.rs"]
mod quic_frames;
#[path = "conformance/quic_packets.rs"]
mod quic_packets;
#[path = "conformance/quic_ports.rs"]
mod quic_ports;
#[path = "conformance/quic_raw.rs"]
mod quic_raw;
#[path = "conformance/quic_resets.rs"]
mod quic_resets;
#[path = "conformance/quic_trust.rs"]
mod quic_trust;
#[path = "conformance/quic_windows.rs"]
mod quic_windows;
#[path = "conformance/quic_workers.rs"]
mod quic_workers;
#[path = "conformance/run.rs"]
mod run;
#[path = "conformance/talk.rs"]
mod talk;
#[path = "conformance/tls.rs"]
mod tls;
#[path = "conformance/trust.rs"]
mod trust;
#[path = "conformance/udp.rs"]
mod udp;

/// One test for each behaviour and transport.
macro_rules! over_every_transport {
    ($($group:ident::{$($behaviour:ident,)+})+) => {
        over!(over_memory: crate::memory::Memory, $($($group $behaviour)+)+);
        over!(over_tls_on_ipv4: crate::tls::Tls<false>, $($($group $behaviour)+)+);
        over!(over_tls_on_ipv6: crate::tls::Tls<true>, $($($group $behaviour)+)+);
        over!(over_quic_on_ipv4: crate::quic::Quic<false>, $($($group $behaviour)+)+);
        over!(over_quic_on_ipv6: crate::quic::Quic<true>, $($($group $behaviour)+)+);
    };
}

/// The same for those that have datagrams.
macro_rules! over_those_with_datagrams {
    ($($behaviour:ident,)+) => {
        over!(datagrams_over_memory: crate::memory::Memory, $(datagrams $behaviour)+);
        over!(datagrams_over_quic_on_ipv4: crate::quic::Quic<false>, $(datagrams $behaviour)+);
        over!(datagrams_over_quic_on_ipv6: crate::quic::Quic<true>, $(datagrams $behaviour)+);
    };
}

macro_rules! over {
    ($transport:ident: $carrier:ty, $($group:ident $behaviour:ident)+) => {
        mod $transport {
            $(
                #[test]
                fn $behaviour() {
                    crate::run::to_its_end(crate::$group::$behaviour::<$carrier>);
                }
            )+
        }
    };
}

over_those_with_datagrams! {
    a_datagram_arrives_whole_in_either_direction,
    the_largest_datagram_is_carried_and_a_larger_one_said_to_be_too_large,
    datagrams_of_two_streams_are_not_mixed_up,
    what_nobody_asked_for_is_lost_and_harms_nobody,
    who_waits_for_a_datagram_is_told_when_the_link_closes,
}

over!(datagrams_over_tls: crate::tls::Tls<false>, datagrams a_stream_over_tls_has_none);

over_every_transport! {
    opening::{
        the_dialer_opens_a_stream,
        the_acceptor_opens_a_stream_although_it_cannot_dial,
        the_header_arrives_as_it_was_sent,
        the_peer_is_who_its_handshake_proved,
        dialling_again_gives_the_same_link,
        nobody_at_an_address_is_an_error,
        another_trust_domain_at_an_address_is_refused,
        a_stream_is_accepted,
        a_stream_is_refused_with_its_reason,
        a_refusal_reaches_who_has_sent_all_it_had,
        bytes_go_ahead_of_the_reply,
        the_far_side_may_speak_first,
        nothing_is_sent_before_the_first_flush,
        giving_up_on_an_open_loses_nothing,
        streams_open_from_any_worker,
    }
    datagrams::{
        a_stream_knows_when_its_certificates_expire,
    }
    ending::{
        the_opener_may_half_close,
        the_acceptor_may_half_close,
        a_stream_may_end_before_any_byte,
        nothing_can_be_sent_after_the_end,
        a_reset_carries_its_reason,
        a_reset_after_bytes_is_never_an_end,
        a_reset_after_a_half_close_reaches_the_writer,
        a_reset_stops_the_one_who_sent_it,
        dropping_a_stream_resets_it,
        a_sink_that_returns_early_resets_the_stream,
        an_end_that_was_not_flushed_never_hangs,
        a_cut_connection_is_an_error_on_both_sides,
        a_cut_connection_after_bytes_is_never_an_end,
        who_neither_reads_nor_writes_learns_that_its_connection_was_cut,
        closing_a_link_ends_its_streams_on_both_sides,
        closing_the_acceptors_link_ends_its_streams_on_both_sides,
        a_closed_link_is_replaced_by_the_next_dial,
    }
    draining::{
        a_draining_gateway_is_seen_by_its_peers,
        a_drained_link_is_seen_at_its_other_side,
        open_streams_outlive_a_drain,
        no_stream_of_the_dialer_is_lost_in_a_race_with_draining,
        no_stream_of_the_acceptor_is_lost_in_a_race_with_draining,
    }
    paths::{
        a_black_path_is_dead_within_a_second,
        opening_on_a_dead_path_fails_at_once,
        who_waits_for_a_stream_is_told_when_the_path_dies,
        a_short_blackout_loses_nothing,
        a_dead_link_comes_back_by_dialling,
        a_cut_link_comes_back_by_dialling,
    }
    pool::{
        a_connection_is_used_for_one_stream_after_the_other,
        a_spare_is_kept_warm,
        the_pool_grows_with_demand_and_is_used_again,
        a_burst_of_streams_is_served,
        streams_are_counted,
    }
    flow::{
        a_reader_that_stops_stops_the_writer_and_releases_it,
        a_stalled_stream_stalls_no_other,
        everything_arrives_intact_both_ways,
        every_size_of_write_arrives,
        giving_up_on_fill_and_flush_loses_nothing,
        what_is_lent_may_be_taken_in_part,
        a_failed_loan_leaves_everything_as_it_was,
        a_stream_can_be_echoed_through_its_own_halves,
    }
}
