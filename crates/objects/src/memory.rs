//! Counts the memory of buffers that many share, so that the metrics page can say what memory is used for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// The bytes of buffers of one kind that are in memory now, whoever refers to them.
#[derive(Clone, Debug, Default)]
pub struct BufferCount(Arc<AtomicUsize>);

impl BufferCount {
    /// Counts a buffer until the last reference to it, or to a slice of it, is gone.
    pub fn track(&self, bytes: Bytes) -> Bytes {
        self.0.fetch_add(bytes.len(), Ordering::Relaxed);
        Bytes::from_owner(Tracked {
            bytes,
            count: Arc::clone(&self.0),
        })
    }

    /// Bytes that are in memory now.
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A buffer whose bytes are in the count.
struct Tracked {
    bytes: Bytes,
    count: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Tracked {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.count.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_counts_once_until_its_last_slice_is_gone() {
        let count = BufferCount::default();
        let whole = count.track(Bytes::from(vec![7; 1000]));
        let (copy, slice) = (whole.clone(), whole.slice(10..20));
        assert_eq!(count.bytes(), 1000);
        drop((whole, copy));
        assert_eq!(count.bytes(), 1000);
        assert_eq!(&slice[..], &[7; 10]);
        drop(slice);
        assert_eq!(count.bytes(), 0);
    }
}
