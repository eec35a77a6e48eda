//! What a shard's task is told beside requests: it must not get lost in a full mailbox.

use std::sync::{Mutex, MutexGuard, PoisonError};

use drumlin_wire::{Str, Uuid};
use tokio::sync::Notify;
use tokio::time::Instant;

/// How a shard ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// Another broker leads the partition, or its topic is gone: at once.
    Unload,
    /// This broker stops: what was written is committed and answered until then.
    Shutdown(Instant),
}

/// News for a shard.
#[derive(Default, Debug)]
pub struct News {
    /// Topics that were deleted.
    pub gone: Vec<(Uuid, Str)>,
    /// The options changed.
    pub reconfigured: bool,
    /// The end.
    pub stop: Option<Stop>,
}

/// The channel for them: never full, and what is told twice is told once.
#[derive(Default, Debug)]
pub struct Control {
    news: Mutex<News>,
    wake: Notify,
}

impl Control {
    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of deleted topics and changed options.
    pub fn tell(&self, gone: &[(Uuid, Str)], reconfigured: bool) {
        if gone.is_empty() && !reconfigured {
            return;
        }
        let mut news = self.news();
        news.gone.extend_from_slice(gone);
        news.reconfigured |= reconfigured;
        drop(news);
        self.wake.notify_one();
    }

    /// Ends the shard.
    pub fn stop(&self, how: Stop) {
        self.news().stop.get_or_insert(how);
        self.wake.notify_one();
    }

    /// How the shard is to end, if it is.
    pub fn stopped(&self) -> Option<Stop> {
        self.news().stop
    }

    /// Takes what there is; the end stays.
    pub fn take(&self) -> News {
        let mut news = self.news();
        let stop = news.stop;
        std::mem::replace(
            &mut *news,
            News {
                stop,
                ..News::default()
            },
        )
    }

    /// Returns when there may be news. One waiter: the shard's task.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }
}
