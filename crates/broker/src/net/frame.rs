//! Frames out of a byte stream: a length, then that many bytes.
//!
//! The buffer grows as bytes arrive, never by the claimed length, and its allocation is used again for the next frames
//! as soon as nobody refers to the last ones: fresh pages cost about as much as all else that is done to a byte.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

use super::budget::Share;

/// A buffer begins with this much, and an idle connection holds no more.
const INITIAL: usize = 512;
/// First step of growth for a connection that does send.
const STEP: usize = 16 * 1024;
/// A busy connection reads up to this much at once, several frames together.
const READ_AHEAD: usize = 256 * 1024;
/// A connection that has sent nothing for this long gives its buffer back.
const RELEASE_AFTER: Duration = Duration::from_secs(2);
/// While others wait for the budget a frame must arrive within this, and [`SLOWEST`] bytes a second beyond it.
const PATIENCE: Duration = Duration::from_secs(10);
const SLOWEST: usize = 1 << 20;
/// After so many frames the buffer's size is held against what they needed.
const REVIEW: u32 = 256;

/// Why no further frame comes.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The peer closed the connection, between two frames.
    #[error("closed by the client")]
    Closed,
    /// The peer closed the connection in the middle of a frame.
    #[error("closed by the client within a frame")]
    Truncated,
    /// A length below zero, or too short for a header.
    #[error("the frame length {0} is not one a request can have")]
    BadLength(i32),
    /// A length above `socket.request.max.bytes`.
    #[error("the frame length {0} is above socket.request.max.bytes ({1})")]
    TooLarge(i32, usize),
    /// Nothing came for `connections.max.idle.ms`.
    #[error("idle for longer than connections.max.idle.ms")]
    Idle,
    /// The frame took too long while other clients waited for its memory.
    #[error("a frame of {0} bytes came too slowly while others waited for request memory")]
    Slow(usize),
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Reads frames from one connection.
#[derive(Debug)]
pub struct FrameReader {
    buf: BytesMut,
    /// Size of the allocation behind `buf`.
    allocated: usize,
    share: Share,
    max_frame: usize,
    /// Largest frame since the last review.
    largest: usize,
    frames: u32,
    /// The last read filled all the room there was: more was waiting.
    filled: bool,
}

/// No request header is shorter: key, version, correlation id.
const SHORTEST: usize = 8;

impl FrameReader {
    /// A reader of frames of at most `max_frame` bytes.
    pub fn new(mut share: Share, max_frame: usize) -> Self {
        share.note_buffer(INITIAL);
        Self {
            buf: BytesMut::with_capacity(INITIAL),
            allocated: INITIAL,
            share,
            max_frame,
            largest: 0,
            frames: 0,
            filled: false,
        }
    }

    /// The next frame, without its length. Cancel safe: bytes that have been read stay.
    pub async fn next<R: AsyncRead + Unpin>(
        &mut self,
        from: &mut R,
        idle: Option<Duration>,
    ) -> Result<Bytes, ReadError> {
        let mut began: Option<Instant> = None;
        loop {
            let total = self.pending()?;
            if let Some(total) = total
                && self.buf.len() >= total
            {
                return Ok(self.cut(total));
            }
            self.make_room(total.map_or(4, |total| total).saturating_sub(self.buf.len()))
                .await;
            let read = self
                .read_within(from, idle, &mut began, total.unwrap_or(0))
                .await?;
            if read == 0 {
                return Err(if self.buf.is_empty() {
                    ReadError::Closed
                } else {
                    ReadError::Truncated
                });
            }
        }
    }

    /// Reads ahead into what room there is, until the peer closes; for use beside a request that is being answered.
    pub async fn watch<R: AsyncRead + Unpin>(&mut self, from: &mut R) -> ReadError {
        loop {
            if self.buf.len() == self.buf.capacity() {
                std::future::pending::<()>().await;
            }
            match self.read(from).await {
                Ok(0) => return ReadError::Closed,
                Ok(_) => {}
                Err(error) => return ReadError::Io(error),
            }
        }
    }

    /// Length of the frame at the front, its prefix included.
    fn pending(&self) -> Result<Option<usize>, ReadError> {
        let Some(prefix) = self.buf.first_chunk::<4>() else {
            return Ok(None);
        };
        let claimed = i32::from_be_bytes(*prefix);
        match usize::try_from(claimed) {
            Ok(length) if length > self.max_frame => Err(ReadError::TooLarge(claimed, self.max_frame)),
            Ok(length) if length >= SHORTEST => Ok(Some(length + 4)),
            _ => Err(ReadError::BadLength(claimed)),
        }
    }

    fn cut(&mut self, total: usize) -> Bytes {
        self.largest = self.largest.max(total);
        self.frames += 1;
        let mut frame = self.buf.split_to(total);
        frame.advance(4);
        frame.freeze()
    }

    async fn read<R: AsyncRead + Unpin>(&mut self, from: &mut R) -> io::Result<usize> {
        // `read_buf` grows a full BytesMut by itself, which would escape the budget: callers make room first.
        let room = self.buf.capacity() - self.buf.len();
        let read = from.read_buf(&mut self.buf).await?;
        self.filled = read == room;
        Ok(read)
    }

    async fn read_within<R: AsyncRead + Unpin>(
        &mut self,
        from: &mut R,
        idle: Option<Duration>,
        began: &mut Option<Instant>,
        total: usize,
    ) -> Result<usize, ReadError> {
        // Short waits first: to give an unused buffer back, and to look whether others wait for this one's memory.
        let start = Instant::now();
        loop {
            match tokio::time::timeout(RELEASE_AFTER, self.read(from)).await {
                Ok(read) => {
                    if began.is_none() {
                        *began = Some(Instant::now());
                    }
                    self.check_pace(*began, total)?;
                    return Ok(read?);
                }
                Err(_) if self.buf.is_empty() => {
                    self.release();
                    let left = idle.map(|idle| idle.saturating_sub(start.elapsed()));
                    return match left {
                        None => Ok(self.read(from).await?),
                        Some(left) => match tokio::time::timeout(left, self.read(from)).await {
                            Ok(read) => Ok(read?),
                            Err(_) => Err(ReadError::Idle),
                        },
                    };
                }
                Err(_) => {
                    self.check_pace(*began, total)?;
                    if idle.is_some_and(|idle| start.elapsed() >= idle) {
                        return Err(ReadError::Idle);
                    }
                }
            }
        }
    }

    fn check_pace(&self, began: Option<Instant>, total: usize) -> Result<(), ReadError> {
        let Some(began) = began else { return Ok(()) };
        if total == 0 || !self.share.budget().contended() {
            return Ok(());
        }
        let allowed = PATIENCE + Duration::from_secs((total / SLOWEST) as u64);
        if began.elapsed() > allowed {
            Err(ReadError::Slow(total))
        } else {
            Ok(())
        }
    }

    /// Gives the allocation back.
    fn release(&mut self) {
        if self.allocated > INITIAL {
            self.replace(INITIAL);
        }
    }

    /// Room for at least one more byte; for `wanted` of them where that needs no new memory.
    async fn make_room(&mut self, wanted: usize) {
        if self.frames >= REVIEW {
            self.review();
        }
        if self.buf.is_empty() {
            // Nothing to move: start at the front of the allocation again, if nobody refers to it any more.
            let whole = self.buf.try_reclaim(self.allocated);
            if self.filled && self.allocated < READ_AHEAD && self.largest * 4 > self.allocated {
                // More was waiting than there was room for: take more at once from now on.
                self.grow((self.allocated * 2).clamp(STEP, READ_AHEAD)).await;
                return;
            }
            if whole {
                return;
            }
        }
        let len = self.buf.len();
        let wanted = wanted.max(INITIAL);
        if self.buf.capacity() - len >= wanted.min(STEP) || self.buf.try_reclaim(wanted) {
            return;
        }
        let rest = self.allocated.saturating_sub(len);
        if rest > 0 && self.buf.try_reclaim(rest) {
            return;
        }
        if self.buf.capacity() > len {
            return;
        }
        // Twice what has arrived, and no more than the frame needs.
        let size = (len * 2).min(len + wanted).max(STEP);
        self.grow(size).await;
    }

    async fn grow(&mut self, size: usize) {
        self.share.cover(size).await;
        self.replace(size);
    }

    fn replace(&mut self, size: usize) {
        let mut fresh = BytesMut::with_capacity(size.max(self.buf.len()));
        fresh.extend_from_slice(&self.buf);
        self.allocated = fresh.capacity();
        self.buf = fresh;
        self.share.give_back(self.allocated);
        self.share.note_buffer(self.allocated);
    }

    fn review(&mut self) {
        let fitting = (self.largest * 4).min(READ_AHEAD).max(self.largest).max(STEP);
        if self.allocated > fitting * 2 && self.buf.len() < fitting {
            self.replace(fitting);
        }
        self.largest = 0;
        self.frames = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::{FREE_BYTES, RequestBudget};
    use super::*;
    use tokio::io::AsyncWriteExt;

    fn reader(budget: &RequestBudget) -> FrameReader {
        FrameReader::new(budget.share(), 1 << 24)
    }

    fn frame(size: usize, fill: u8) -> Vec<u8> {
        let mut out = (size as u32).to_be_bytes().to_vec();
        out.resize(size + 4, fill);
        out
    }

    #[tokio::test]
    async fn frames_of_all_sizes_come_out_as_they_went_in() {
        let budget = RequestBudget::new(1 << 24);
        let mut reader = reader(&budget);
        let (mut client, mut server) = tokio::io::duplex(10_000);
        let sizes = [
            8usize, 9, 500, 511, 512, 513, 16_000, 70_000, 8, 1_000_000, 300_000, 8,
        ];
        let writer = async {
            for round in 0..3u8 {
                for (i, &size) in sizes.iter().enumerate() {
                    client
                        .write_all(&frame(size, round * 50 + i as u8))
                        .await
                        .unwrap();
                }
            }
            drop(client);
        };
        let reading = async {
            for round in 0..3u8 {
                for (i, &size) in sizes.iter().enumerate() {
                    let got = reader.next(&mut server, None).await.unwrap();
                    assert_eq!(got.len(), size);
                    assert!(got.iter().all(|&b| b == round * 50 + i as u8));
                }
            }
            assert!(matches!(
                reader.next(&mut server, None).await,
                Err(ReadError::Closed)
            ));
        };
        tokio::join!(writer, reading);
        assert!(reader.allocated < 3_000_000, "{}", reader.allocated);
    }

    #[tokio::test]
    async fn a_claimed_length_costs_nothing_until_its_bytes_come() {
        let budget = RequestBudget::new(1 << 24);
        let mut reader = reader(&budget);
        let (mut client, mut server) = tokio::io::duplex(64);
        client.write_all(&(10_000_000i32).to_be_bytes()).await.unwrap();
        client.write_all(&[1; 50]).await.unwrap();
        let waits = tokio::time::timeout(Duration::from_millis(50), reader.next(&mut server, None)).await;
        assert!(waits.is_err());
        assert!(reader.allocated <= STEP);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn the_allocation_is_used_again() {
        let budget = RequestBudget::new(1 << 24);
        let mut reader = reader(&budget);
        let (mut client, mut server) = tokio::io::duplex(1 << 20);
        let mut places = std::collections::BTreeSet::new();
        for _ in 0..100 {
            client.write_all(&frame(65_536, 7)).await.unwrap();
            let got = reader.next(&mut server, None).await.unwrap();
            places.insert(got.as_ptr() as usize & !0x3_ffff);
        }
        assert!(places.len() <= 6, "{} allocations", places.len());
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_gives_its_buffer_back_and_is_closed_in_the_end() {
        let budget = RequestBudget::new(1 << 24);
        let mut reader = reader(&budget);
        let (mut client, mut server) = tokio::io::duplex(1 << 20);
        client.write_all(&frame(200_000, 7)).await.unwrap();
        reader.next(&mut server, None).await.unwrap();
        assert!(budget.used() > 0);
        assert!(budget.buffer_bytes() >= 200_000);
        let end = reader.next(&mut server, Some(Duration::from_secs(60))).await;
        assert!(matches!(end, Err(ReadError::Idle)));
        assert_eq!((reader.allocated, budget.used()), (INITIAL, 0));
        assert_eq!(budget.buffer_bytes(), INITIAL);
        drop(reader);
        assert_eq!(budget.buffer_bytes(), 0);
    }

    #[tokio::test]
    async fn lengths_that_no_request_has_are_refused() {
        let budget = RequestBudget::new(1 << 24);
        for bad in [-1, 0, 7, i32::MIN, i32::MAX, 1 << 25] {
            let mut reader = reader(&budget);
            let (mut client, mut server) = tokio::io::duplex(64);
            client.write_all(&i32::to_be_bytes(bad)).await.unwrap();
            assert!(reader.next(&mut server, None).await.is_err(), "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_cut_off_only_while_others_wait() {
        let budget = RequestBudget::new(1 << 20);
        let mut reader = reader(&budget);
        let (mut client, mut server) = tokio::io::duplex(4 << 20);
        let mut start = frame(2 << 20, 0);
        start.truncate(1 << 20);
        client.write_all(&start).await.unwrap();
        let slow = async move {
            let end = reader.next(&mut server, None).await;
            // As a connection does: the reader goes, and with it what it held.
            drop(reader);
            end
        };
        let other = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            let mut share = budget.share();
            share.cover(FREE_BYTES + (1 << 20)).await;
        };
        let (end, ()) = tokio::join!(slow, other);
        assert!(matches!(end, Err(ReadError::Slow(_))), "{end:?}");
        drop(client);
    }
}
