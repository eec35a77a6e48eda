//! The birth object, `meta/log/0`: what a cluster is born with and never changes.
//!
//! Body, after the chain's header (whose chain id is the cluster's id):
//!
//! | field | bytes |
//! | --- | --- |
//! | magic | `DRMBIRTH` |
//! | version | one byte, 1 |
//! | cluster id | `id` |
//! | format level | `uint`, of everything in the bucket at birth |
//! | created | `int`, Unix milliseconds by the clock of the broker that did it |
//! | created by | `string`, the version of drumlin |
//! | probe | `string`: what the first probe of the store showed |

use bytes::{BufMut, BytesMut};

use crate::codec::{DecodeError, Reader, Write};
use crate::ids::ClusterId;

const MAGIC: &[u8; 8] = b"DRMBIRTH";
const VERSION: u8 = 1;

/// What a cluster is born with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Birth {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The level of the formats that it may use; raised by the feature `drumlin.format`.
    pub format_level: u16,
    /// When, Unix milliseconds.
    pub created_ms: i64,
    /// By which version of drumlin.
    pub created_by: String,
    /// What the first probe of the store showed.
    pub probe: String,
}

impl Birth {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_slice(MAGIC);
        out.put_u8(VERSION);
        out.put_slice(&self.cluster_id.0);
        out.uint(self.format_level.into());
        out.int(self.created_ms);
        out.string(&self.created_by);
        out.string(&self.probe);
    }

    /// Reads the body of the birth object.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(body, "the birth object");
        if r.bytes(MAGIC.len())? != MAGIC {
            return Err(DecodeError::Magic("drumlin birth object"));
        }
        let version = r.u8()?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion {
                what: "the birth object",
                version: version.into(),
                newest: VERSION.into(),
            });
        }
        let birth = Self {
            cluster_id: ClusterId(r.id()?),
            format_level: r.narrow_uint()?,
            created_ms: r.int()?,
            created_by: r.string()?,
            probe: r.string()?,
        };
        r.end()?;
        Ok(birth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_refuses_what_it_does_not_know() {
        let birth = Birth {
            cluster_id: ClusterId::from_random([7; 16]),
            format_level: 1,
            created_ms: -5,
            created_by: "0.1.0".into(),
            probe: "full: 50 keys, 16 writers".into(),
        };
        let mut bytes = BytesMut::new();
        birth.encode(&mut bytes);
        assert_eq!(Birth::decode(&bytes), Ok(birth));
        for end in 0..bytes.len() {
            assert!(Birth::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        let mut newer = bytes.clone();
        newer[8] = 2;
        let error = Birth::decode(&newer).unwrap_err();
        assert!(matches!(error, DecodeError::UnknownVersion { version: 2, .. }));
        assert!(error.to_string().contains("start that or a later version"));
        bytes[0] = b'X';
        assert!(matches!(Birth::decode(&bytes), Err(DecodeError::Magic(_))));
    }
}
