//! Drives a target where libFuzzer cannot: changes seeds at random, from a fixed start, until the time is up.
//!
//! ```text
//! NAME SECONDS FOLDER...      every file of the folders as it is, then what becomes of them
//! NAME 0 FILE                 one input, to see a failure again
//! ```

use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, fs};

use crate::Target;

/// Inputs are cut to this.
const INPUT_MAX_BYTES: usize = 8192;
/// The same sequence every time: what fails once fails again.
const START: u64 = 0x0c0f_fee0_5eed;
/// Bytes that parsers stumble over.
const ODD_BYTES: &[u8] = &[
    0, 1, b'\t', b'\n', b' ', b'%', b'-', b'.', b'/', b'0', b':', b'@', b'A', 0x7f, 0x80, 0xff,
];

/// The `main` of a program on stable.
pub fn main(target: Target) -> ExitCode {
    let mut arguments = env::args().skip(1);
    let seconds = arguments.next().and_then(|argument| argument.parse().ok());
    let places: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    let Some(seconds) = seconds.filter(|_| !places.is_empty()) else {
        eprintln!("usage: SECONDS FOLDER...   or: 0 FILE");
        return ExitCode::from(2);
    };
    match drive(target, &places, Duration::from_secs(seconds)) {
        Ok(runs) => {
            eprintln!("{runs} inputs, none failed");
            ExitCode::SUCCESS
        }
        Err(input) => {
            eprintln!("failed on {} bytes: {}", input.len(), input.escape_ascii());
            ExitCode::FAILURE
        }
    }
}

/// The number of inputs tried, or the one that panicked.
fn drive(target: Target, places: &[PathBuf], time: Duration) -> Result<u64, Vec<u8>> {
    let attempt = |input: Vec<u8>| match panic::catch_unwind(AssertUnwindSafe(|| target(&input))) {
        Ok(_) => Ok(()),
        Err(_) => Err(input),
    };
    let seeds: Vec<Vec<u8>> = places
        .iter()
        .flat_map(|place| inputs(place))
        .map(|(bytes, _)| bytes)
        .collect();
    for seed in &seeds {
        attempt(seed.clone())?;
    }
    let end = Instant::now() + time;
    let mut random = fastrand::Rng::with_seed(START);
    let mut runs = seeds.len() as u64;
    while Instant::now() < end {
        for _ in 0..1000 {
            attempt(mutated(&seeds, &mut random))?;
        }
        runs += 1000;
    }
    Ok(runs)
}

/// All files of a folder, or the one file, with their names, in the order of the names.
pub fn inputs(place: &Path) -> Vec<(Vec<u8>, String)> {
    let mut files: Vec<PathBuf> = match fs::read_dir(place) {
        Ok(entries) => entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect(),
        Err(_) => vec![place.to_owned()],
    };
    files.sort();
    let read = |file: PathBuf| Some((fs::read(&file).ok()?, file.display().to_string()));
    files.into_iter().filter_map(read).collect()
}

/// One of the seeds, changed in one to eight places.
fn mutated(seeds: &[Vec<u8>], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut input = random.choice(seeds).cloned().unwrap_or_default();
    for _ in 0..random.usize(1..=8) {
        mutate(&mut input, seeds, random);
    }
    input.truncate(INPUT_MAX_BYTES);
    input
}

fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut fastrand::Rng) {
    let at = random.usize(0..=input.len());
    let end = random.usize(at..=input.len());
    let odd = *random.choice(ODD_BYTES).unwrap_or(&0);
    match random.u8(0..8) {
        0 => input.insert(at, odd),
        1 => input.insert(at, random.u8(..)),
        2 => input.truncate(at),
        3 => drop(input.drain(at..end)),
        4 => {
            let part = input[at..end].repeat(random.usize(1..=64));
            input.splice(at..at, part);
        }
        5 => {
            let other = random.choice(seeds).cloned().unwrap_or_default();
            let cut = random.usize(0..=other.len());
            input.splice(at.., other[cut..].iter().copied());
        }
        6 if at < input.len() => input[at] ^= 1 << random.u8(0..8),
        _ if at < input.len() => input[at] = odd,
        _ => input.push(odd),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuses_at_signs(bytes: &[u8]) -> bool {
        assert!(!bytes.contains(&b'@'));
        true
    }

    #[test]
    fn a_panic_is_found_and_named() {
        let seeds = env::temp_dir().join(format!("corinth-fuzz-{}", std::process::id()));
        fs::write(&seeds, "abcdef").unwrap();
        let found = drive(
            refuses_at_signs,
            std::slice::from_ref(&seeds),
            Duration::from_secs(60),
        );
        fs::remove_file(&seeds).unwrap();
        assert!(found.unwrap_err().contains(&b'@'));
    }
}
