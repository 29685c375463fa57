//! Whatever is written in whatever pieces, in whatever order of both sides, arrives byte for byte.
//!
//! Between the two gateways the bytes are cut into pieces of random size, so that frames and records are
//! received at every possible boundary; datagrams are lost, doubled and put out of order.

use corinth_transport::{Fill, Stream, StreamError};
use proptest::{
    collection::vec,
    prelude::{Just, Strategy, any, prop_oneof},
    test_runner::{Config, TestCaseError, TestRunner},
};

use crate::{
    memory::Memory,
    pair::{Between, Carrier},
    quic::Quic,
    run,
    talk::{self, Talk},
    tls::Tls,
};

/// What one side does next.
#[derive(Debug, Clone)]
enum Step {
    Put {
        bytes: usize,
    },
    Flush,
    /// Lets everything else happen first.
    Yield,
}

/// All that one side does in one stream.
#[derive(Debug, Clone)]
struct Script {
    steps: Vec<Step>,
    /// Bytes taken at most from each loan.
    takes: Vec<usize>,
}

fn script() -> impl Strategy<Value = Script> {
    let bytes = prop_oneof![
        1..64_usize,
        1..5_000_usize,
        15_000..18_000_usize,
        1..200_000_usize
    ];
    let step = prop_oneof![
        4 => bytes.prop_map(|bytes| Step::Put { bytes }),
        2 => Just(Step::Flush),
        1 => Just(Step::Yield),
    ];
    let steps = vec(step, 0..20);
    let takes = vec(
        prop_oneof![1..100_usize, 1..40_000_usize, Just(usize::MAX)],
        1..8,
    );
    (steps, takes).prop_map(|(steps, takes)| Script { steps, takes })
}

#[test]
fn whatever_is_written_arrives_over_tls() {
    run::in_time(holds_over::<Tls<false>>);
}

#[test]
fn whatever_is_written_arrives_over_quic() {
    run::in_time(holds_over::<Quic<false>>);
}

#[test]
fn whatever_is_written_arrives_over_memory() {
    run::in_time(holds_over::<Memory>);
}

/// A few pairs of gateways with many streams each.
fn holds_over<C: Carrier>() {
    let config = Config {
        cases: 16,
        failure_persistence: None,
        ..Config::default()
    };
    let scripts = vec((script(), script()), 1..10);
    let outcome = TestRunner::new(config).run(&(any::<u64>(), scripts), |(seed, scripts)| {
        run::worker().block_on(streams::<C>(seed, scripts))
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

async fn streams<C: Carrier>(
    seed: u64,
    scripts: Vec<(Script, Script)>,
) -> Result<(), TestCaseError> {
    let mut pair = C::pair(Between::Pieces(seed)).await;
    let (link, _) = pair.dial().await;
    for (near_script, far_script) in scripts {
        let (mut near, mut far) = pair.stream(&link).await;
        let (to_far, to_near) = (near_script.bytes(1), far_script.bytes(2));
        let sends = to_near.clone();
        let far_side = far
            .with(move |stream| Box::pin(async move { play(stream, &far_script, &sends).await }));
        let near_side = play(&mut near, &near_script, &to_far);
        let (near_read, far_read) = tokio::join!(near_side, far_side);
        let as_failure = |error: StreamError| TestCaseError::fail(error.to_string());
        if far_read.map_err(as_failure)? != to_far || near_read.map_err(as_failure)? != to_near {
            return Err(TestCaseError::fail("other bytes arrived than were sent"));
        }
    }
    Ok(())
}

impl Script {
    /// Everything the script puts, in order.
    fn bytes(&self, seed: u64) -> Vec<u8> {
        let total = self.steps.iter().map(|step| match step {
            Step::Put { bytes } => *bytes,
            Step::Flush | Step::Yield => 0,
        });
        let mut bytes = vec![0; total.sum()];
        fastrand::Rng::with_seed(seed).fill(&mut bytes);
        bytes
    }
}

/// Does what the script says and reads to the end. Returns what was read.
async fn play(stream: &mut Stream, script: &Script, sends: &[u8]) -> Result<Vec<u8>, StreamError> {
    let (mut read, mut write) = stream.split();
    let writing = async {
        let mut left = sends;
        for step in &script.steps {
            match *step {
                Step::Put { bytes } => {
                    let (mut now, later) = left.split_at(bytes);
                    left = later;
                    while !now.is_empty() {
                        let put = talk::put(&mut write, now)?;
                        now = &now[put..];
                        if put == 0 {
                            write.flush().await?;
                        }
                    }
                }
                Step::Flush => write.flush().await?,
                Step::Yield => tokio::task::yield_now().await,
            }
        }
        write.put_end()?;
        write.flush().await
    };
    let reading = async {
        let mut bytes = Vec::new();
        for most in script.takes.iter().cycle() {
            match read.fill().await? {
                Fill::Data => talk::take(&mut read, *most, |piece| bytes.extend_from_slice(piece))?,
                Fill::End => break,
            };
        }
        Ok(bytes)
    };
    let ((), bytes) = tokio::try_join!(writing, reading)?;
    Ok(bytes)
}
