//! The sockets of one import port, one for each worker. The kernel deals clients out among those that are open and deals
//! anew when one closes: as long as one of them has flows, all stay.

use std::sync::Arc;

use tokio::sync::watch;

/// One socket's share in staying open.
pub(crate) struct Companion {
    stays: watch::Receiver<()>,
    all: Arc<watch::Sender<()>>,
}

impl Companion {
    /// So many that stay together.
    pub(crate) fn group(count: usize) -> impl Iterator<Item = Self> {
        let all = Arc::new(watch::Sender::new(()));
        (0..count)
            .map(move |_| Self {
                stays: all.subscribe(),
                all: Arc::clone(&all),
            })
            // All of them before any can leave.
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// This one needs to stay no longer. Resolves when none of them does.
    pub(crate) async fn last_has_left(self) {
        let Self { stays, all } = self;
        drop(stays);
        all.closed().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn nobody_leaves_before_the_last_one() {
        let mut group = Companion::group(3);
        let [first, second, third] = [(); 3].map(|()| group.next().unwrap());
        let (mut first, mut third) = (
            Box::pin(first.last_has_left()),
            Box::pin(third.last_has_left()),
        );
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut third).now_or_never().is_none());
        // One that was of no use is not waited for.
        drop(second);
        assert!(first.now_or_never().is_some());
        assert!(third.now_or_never().is_some());
    }
}
