//! Deleting many objects.

use futures::{StreamExt, TryStreamExt};

use crate::bucket::Bucket;
use crate::error::StoreError;
use crate::stats::Reason;

/// Deletions on their way at a time.
const IN_FLIGHT: usize = 8;

impl Bucket {
    /// Deletes all objects; absent is success, in any order. Each is retried like [`Bucket::delete`].
    ///
    /// # Errors
    /// The first failure; some of the objects may be deleted then.
    pub async fn delete_all(&self, keys: &[String], why: Reason) -> Result<(), StoreError> {
        futures::stream::iter(keys.to_vec())
            .map(|key| async move { self.delete(&key, why).await })
            .buffer_unordered(IN_FLIGHT)
            .try_collect()
            .await
    }
}
