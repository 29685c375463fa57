use super::*;
use crate::impairment::{Jitter, Reordering};

fn applied(words: &str) -> Impairment {
    let change: Change = words.parse().unwrap();
    change.applied(&Impairment::default(), &Impairment::default())
}

#[test]
fn every_word_changes_what_it_names() {
    let all = "delay 30ms jitter 2ms jitter-order free loss ge:1%,25%,80%,0.1% reorder 2%,3ms duplicate 1% \
               corrupt 0.5% queue 2bdp aqm codel rate 100mbit mtu 1280 oversize vanishes udp 10mbit \
               drop-size 1201-1500 blackout";
    let expected = Impairment {
        path: Path::Blackout,
        delay: Duration::from_millis(30),
        jitter: Jitter {
            amount: Duration::from_millis(2),
            order: Order::Free,
        },
        loss: Loss::GilbertElliott(GilbertElliott {
            to_bad: 0.01,
            to_good: 0.25,
            bad_loss: 0.8,
            good_loss: 0.001,
        }),
        reordering: Reordering {
            probability: 0.02,
            late_by: Duration::from_millis(3),
        },
        duplication: 0.01,
        corruption: 0.005,
        rate: Some(Rate {
            bits_per_second: 100_000_000,
            limit: QueueLimit::Bdp(2.0),
            discipline: Discipline::CODEL,
        }),
        mtu: Some(Mtu {
            bytes: 1_280,
            oversize: Oversize::Vanishes,
        }),
        udp: Udp::Policed {
            bits_per_second: 10_000_000,
            burst_bytes: 25_000,
        },
        dropped_sizes: Some(1_201..=1_500),
    };
    assert_eq!(applied(all), expected);
}

#[test]
fn clear_leads_back_to_the_start() {
    let initial = applied("delay 30ms loss 1%");
    let dark = "blackout delay 1s".parse::<Change>().unwrap();
    let dark = dark.applied(&initial, &initial);
    assert_eq!(dark.path, Path::Blackout);
    let clear: Change = "clear".parse().unwrap();
    assert_eq!(clear.applied(&dark, &initial), initial);
}

#[test]
fn off_takes_back() {
    let limited = applied("rate 1mbit mtu 1280 drop-size 100");
    let off: Change = "rate off mtu off drop-size off".parse().unwrap();
    assert_eq!(off.applied(&limited, &limited), Impairment::default());
}

#[test]
fn wrong_words_say_what_is_wrong() {
    let fault = |words: &str| words.parse::<Change>().unwrap_err();
    assert_eq!(fault("  "), NoChange::Empty);
    assert_eq!(fault("dealy 3ms"), NoChange::Unknown("dealy".into()));
    assert_eq!(fault("delay"), NoChange::NoValue("delay".into()));
    assert_eq!(
        fault("delay 30").to_string(),
        "delay: `30` is no time; write 30ms, 500us or 2s"
    );
    assert_eq!(
        fault("udp slow").to_string(),
        "udp: `slow` is no rate; write 100mbit, 512kbit or 1gbit"
    );
    assert_eq!(
        fault("aqm red").to_string(),
        "aqm: `red` is not one of: drop-tail, codel, codel,TARGET,INTERVAL"
    );
    assert_eq!(
        fault("loss ge:1%").to_string(),
        "loss: `ge:1%` is not one of: SHARE, ge:TO_BAD,TO_GOOD[,BAD_LOSS[,GOOD_LOSS]]"
    );
}

#[test]
fn values_that_make_no_sense_are_named() {
    let fault = |words: &str| {
        applied(words)
            .check_with(&Impairment::default())
            .unwrap_err()
    };
    let faults = [
        (
            "loss 101%",
            "loss is 101 %, which is no probability from 0 % to 100 %",
        ),
        (
            "rate 0mbit",
            "the rate is 0 bit/s; say `blackout`, or `udp blocked`, if nothing shall pass",
        ),
        ("mtu 20", "an MTU of 20 bytes is outside 68 to 65535"),
        ("delay 61s", "the delay is 61s; at most 60s can be emulated"),
        ("drop-size 9-3", "no packet has a size from 9 to 3 bytes"),
        (
            "rate 1mbit queue 1bdp",
            "a queue in bdp needs a delay: the product of rate and no delay is an empty queue",
        ),
        (
            "rate 1mbit delay 1ms queue 0bdp",
            "a queue of 0 bdp can hold nothing",
        ),
        (
            "rate 1mbit aqm codel,10ms,5ms",
            "CoDel needs a target above 0 and an interval that is longer",
        ),
        (
            "loss ge:0%,0%",
            "a Gilbert-Elliott chain needs a probability above 0 % to turn good or to turn bad",
        ),
    ];
    for (words, expected) in faults {
        assert_eq!(fault(words).to_string(), expected);
    }
}

#[test]
fn words_that_would_do_nothing_are_refused() {
    let none = Impairment::default();
    let tried = |words: &str| words.parse::<Change>().unwrap().tried(&none, &none);
    assert_eq!(
        tried("queue 64k").unwrap_err().to_string(),
        "`queue` is about a rate, and there is none"
    );
    assert!(tried("aqm codel").is_err());
    assert!(tried("oversize vanishes").is_err());
    assert!(tried("rate off queue 1bdp").is_err());
    assert!(tried("oversize vanishes mtu 1280 queue 1bdp rate 1mbit").is_ok());
}
