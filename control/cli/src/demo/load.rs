//! A steady load of calls, watched as they end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    sync::{RwLock, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    client::{Client, Miss},
    service::Who,
};

/// Callers of one load.
const CALLERS: usize = 8;
/// Each of them calls so often, if answers come as fast: some hundred calls a second in all, little work for one machine.
const PACE: Duration = Duration::from_millis(20);
/// Most that is waited for anything to show in the calls.
const PATIENCE: Duration = Duration::from_secs(20);

/// One call that has ended.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) began: Instant,
    pub(super) ended: Instant,
    pub(super) result: Result<Who, Miss>,
}

/// Calls that go on until this is dropped or stopped.
pub(super) struct Load {
    shared: Arc<Shared>,
    callers: JoinSet<()>,
}

struct Shared {
    client: Client,
    calls: Mutex<Vec<Call>>,
    news: watch::Sender<()>,
    /// Held for reading by each call: whoever holds it for writing acts while none is under way.
    between: RwLock<()>,
}

/// A time at which no call was under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// How many calls had ended.
    calls: usize,
}

impl Call {
    pub(super) fn took(&self) -> Duration {
        self.ended - self.began
    }

    /// Whether `instance` answered it.
    pub(super) fn is_by(&self, instance: &str) -> bool {
        self.result
            .as_ref()
            .is_ok_and(|who| who.instance == instance)
    }

    /// Whether somebody in `cluster` answered it.
    pub(super) fn is_from(&self, cluster: &str) -> bool {
        self.result.as_ref().is_ok_and(|who| who.cluster == cluster)
    }
}

impl Load {
    pub(super) fn start(client: Client) -> Self {
        let shared = Arc::new(Shared {
            client,
            calls: Mutex::default(),
            news: watch::Sender::new(()),
            between: RwLock::default(),
        });
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            callers.spawn(call_on(Arc::clone(&shared)));
        }
        Self { shared, callers }
    }

    /// Does something while no call is under way, and says when that was. A call that is inside an application when
    /// it dies cannot be saved by anyone: whether it was carried out is not known.
    pub(super) async fn between<T>(&self, act: impl Future<Output = T>) -> (Moment, T) {
        let _quiet = self.shared.between.write().await;
        let done = act.await;
        let moment = Moment {
            calls: self.shared.calls.lock().len(),
        };
        (moment, done)
    }

    /// Waits until the calls since `moment` satisfy `is_there`; `what` says it in words.
    pub(super) async fn until(
        &self,
        what: &str,
        moment: Moment,
        is_there: impl Fn(&[Call]) -> bool,
    ) -> Result<(), String> {
        let mut news = self.shared.news.subscribe();
        let watched = async {
            loop {
                news.borrow_and_update();
                if self.look(moment, &is_there) {
                    return;
                }
                // The sender lives in `self`.
                let _ = news.changed().await;
            }
        };
        timeout(PATIENCE, watched).await.map_err(|_| {
            let seen = self.look(moment, |calls| match calls.last() {
                Some(Call {
                    result: Ok(who), ..
                }) => {
                    format!(
                        "the last of {} calls was answered by {}",
                        calls.len(),
                        who.instance
                    )
                }
                Some(Call {
                    result: Err(miss), ..
                }) => {
                    format!("the last of {} calls failed: {miss}", calls.len())
                }
                None => "no call ended".to_owned(),
            });
            format!("waited {PATIENCE:?} for {what}; {seen}")
        })
    }

    /// Looks at the calls since `moment`, in the order in which they ended.
    pub(super) fn look<T>(&self, moment: Moment, look: impl FnOnce(&[Call]) -> T) -> T {
        look(self.shared.calls.lock().get(moment.calls..).unwrap_or(&[]))
    }

    /// Ends the load, with every call whole, and gives all calls.
    pub(super) async fn stop(mut self) -> Vec<Call> {
        let quiet = self.shared.between.write().await;
        self.callers.abort_all();
        drop(quiet);
        while self.callers.join_next().await.is_some() {}
        std::mem::take(&mut *self.shared.calls.lock())
    }
}

async fn call_on(shared: Arc<Shared>) {
    let mut turns = interval(PACE);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        {
            let _calling = shared.between.read().await;
            let began = Instant::now();
            let result = shared.client.call().await;
            shared.calls.lock().push(Call {
                began,
                ended: Instant::now(),
                result,
            });
        }
        shared.news.send_replace(());
    }
}
