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
