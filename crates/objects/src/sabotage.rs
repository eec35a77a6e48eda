//! Deliberate defects, each the breach of one rule, so that a simulation can show that it finds them.
//!
//! Without the feature `sabotage`, which only the tests enable, [`on`] is a constant `false` and nothing of this
//! is left in the product. With it, one defect at a time is switched on for the current thread, on which a
//! simulation runs whole.

/// A rule, and how it is broken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Sabotage {
    /// `acks=all` is answered when the batch is appended.
    AckBeforeCommit,
    /// A duplicate is answered though its first copy is not committed [A4].
    DuplicateBeforeCommit,
    /// A fencer does not look for newer checkpoints after it has put its fence [F2].
    NoRelist,
    /// Entries beyond the fence come back when an incarnation is taken over [I2].
    BeyondFence,
    /// What one does not know and is old is deleted [D3].
    DeleteByAge,
    /// What a round drops is deleted before its entry is committed [D3].
    DeleteBeforeCommit,
    /// An entry names objects that are still on their way [N2].
    NameBeforeDurable,
    /// A new manifest drops more than compaction has read, and a key with it.
    KeyDroppedByCompaction,
    /// A tombstone is removed by the first pass that sees it, whatever `delete.retention.ms` says.
    TombstoneTooEarly,
}

#[cfg(feature = "sabotage")]
impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::AckBeforeCommit,
        Self::DuplicateBeforeCommit,
        Self::NoRelist,
        Self::BeyondFence,
        Self::DeleteByAge,
        Self::DeleteBeforeCommit,
        Self::NameBeforeDurable,
        Self::KeyDroppedByCompaction,
        Self::TombstoneTooEarly,
    ];
}

#[cfg(feature = "sabotage")]
thread_local! {
    static CHOSEN: std::cell::Cell<Option<Sabotage>> = const { std::cell::Cell::new(None) };
}

/// Switches one defect on for this thread, or all off.
#[cfg(feature = "sabotage")]
pub fn choose(which: Option<Sabotage>) {
    CHOSEN.set(which);
}

/// Whether the code at hand is to misbehave.
#[cfg(feature = "sabotage")]
pub fn on(which: Sabotage) -> bool {
    CHOSEN.get() == Some(which)
}

/// Whether the code at hand is to misbehave: never.
#[cfg(not(feature = "sabotage"))]
#[inline(always)]
pub const fn on(_which: Sabotage) -> bool {
    false
}

/// Names the task that is to panic, for processes that a test starts: `wal-flusher`.
#[cfg(feature = "sabotage")]
pub const PANIC_IN: &str = "DRUMLIN_TEST_PANIC_IN";
/// Names a file; the task panics once that is there.
#[cfg(feature = "sabotage")]
pub const PANIC_WHEN: &str = "DRUMLIN_TEST_PANIC_WHEN";

#[cfg(feature = "sabotage")]
fn panics_when(kind: crate::task::TaskKind) -> Option<&'static std::path::Path> {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<(String, std::path::PathBuf)>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        Some((
            std::env::var(PANIC_IN).ok()?,
            std::env::var_os(PANIC_WHEN)?.into(),
        ))
    });
    let (name, when) = chosen.as_ref()?;
    (name == kind.name()).then_some(when)
}

/// A task's work, which panics where a test asks for that.
#[cfg(feature = "sabotage")]
#[allow(clippy::panic, reason = "that is what it is for")]
pub(crate) async fn in_task<F: Future>(kind: crate::task::TaskKind, work: F) -> F::Output {
    let Some(when) = panics_when(kind) else {
        return work.await;
    };
    let asked = async {
        while !when.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        biased;
        () = asked => panic!("as a test asks for"),
        output = work => output,
    }
}

/// A task's work: as it is.
#[cfg(not(feature = "sabotage"))]
#[inline(always)]
pub(crate) fn in_task<F: Future>(_kind: crate::task::TaskKind, work: F) -> F {
    work
}

/// Panics where a test asks for that.
#[cfg(feature = "sabotage")]
#[allow(clippy::panic, reason = "that is what it is for")]
pub(crate) fn in_blocking(kind: crate::task::TaskKind) {
    if panics_when(kind).is_some_and(std::path::Path::exists) {
        panic!("as a test asks for");
    }
}

/// Panics nowhere.
#[cfg(not(feature = "sabotage"))]
#[inline(always)]
pub(crate) fn in_blocking(_kind: crate::task::TaskKind) {}
