//! An impairment in the words of `tc`.

use std::time::Duration;

use crate::impairment::{Impairment, Loss, Order, Path, Udp};

/// More than any delay and rate of ours keeps on its way.
const LIMIT_PACKETS: &str = "200000";

/// The words, or what netem does not do as we do. All that can be changed is named each time: what is not named stays.
pub(super) fn of(impairment: &Impairment, seed: u64) -> Result<Vec<String>, &'static str> {
    check(impairment)?;
    let mut words: Vec<String> = vec!["limit".into(), LIMIT_PACKETS.into()];
    words.extend(["delay".into(), time(impairment.delay)]);
    words.push(time(impairment.jitter.amount));
    words.extend(loss(impairment));
    words.extend(["duplicate".into(), share(impairment.duplication)]);
    words.extend(["corrupt".into(), share(impairment.corruption)]);
    words.extend(["seed".into(), seed.to_string()]);
    Ok(words)
}

fn check(impairment: &Impairment) -> Result<(), &'static str> {
    if impairment.rate.is_some() {
        return Err("a rate whose queue is counted in bytes");
    }
    if !impairment.jitter.amount.is_zero() && impairment.jitter.order == Order::Kept {
        return Err("jitter that keeps the order");
    }
    if impairment.reordering.probability > 0.0 {
        return Err("packets that come late by a given time");
    }
    if impairment.mtu.is_some() {
        return Err("an MTU behind the device");
    }
    if impairment.udp != Udp::Passes {
        return Err("blocked or policed UDP");
    }
    if impairment.dropped_sizes.is_some() {
        return Err("dropping packets by size");
    }
    Ok(())
}

fn loss(impairment: &Impairment) -> Vec<String> {
    let loss = match impairment.path {
        Path::Up => impairment.loss,
        Path::Blackout => Loss::Bernoulli(1.0),
    };
    match loss {
        Loss::Never => vec!["loss".into(), "random".into(), share(0.0)],
        Loss::Bernoulli(probability) => vec!["loss".into(), "random".into(), share(probability)],
        Loss::GilbertElliott(chain) => {
            let shares = [chain.to_bad, chain.to_good, chain.bad_loss, chain.good_loss];
            let words = ["loss".to_owned(), "gemodel".to_owned()];
            words.into_iter().chain(shares.map(share)).collect()
        }
    }
}

fn time(time: Duration) -> String {
    format!("{}us", time.as_micros())
}

fn share(share: f64) -> String {
    format!("{:.6}%", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Change;

    fn said(words: &str) -> Result<String, &'static str> {
        let none = Impairment::default();
        let impairment = words.parse::<Change>().unwrap().applied(&none, &none);
        of(&impairment, 7).map(|words| words.join(" "))
    }

    #[test]
    fn what_netem_does_is_said_in_its_words() {
        assert_eq!(
            said("delay 30ms jitter 2ms jitter-order free loss 0.1% duplicate 1% corrupt 2%")
                .unwrap(),
            "limit 200000 delay 30000us 2000us loss random 0.100000% duplicate 1.000000% corrupt 2.000000% seed 7"
        );
        assert_eq!(
            said("loss ge:1%,25%,90%,0.5%").unwrap(),
            "limit 200000 delay 0us 0us loss gemodel 1.000000% 25.000000% 90.000000% 0.500000% \
             duplicate 0.000000% corrupt 0.000000% seed 7"
        );
        assert!(
            said("loss 1% blackout")
                .unwrap()
                .contains("loss random 100.000000%")
        );
    }

    #[test]
    fn what_netem_does_otherwise_is_not_given_to_it() {
        let refused = [
            ("rate 1mbit", "a rate whose queue is counted in bytes"),
            ("jitter 1ms", "jitter that keeps the order"),
            ("reorder 1%", "packets that come late by a given time"),
            ("mtu 1280", "an MTU behind the device"),
            ("udp blocked", "blocked or policed UDP"),
            ("drop-size 1-9", "dropping packets by size"),
        ];
        for (words, why) in refused {
            assert_eq!(said(words), Err(why));
        }
    }
}
