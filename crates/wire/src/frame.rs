//! Frames: a length of four bytes, a header, a body.

use bytes::Bytes;

use crate::{EncodeError, Request, RequestHeader, Response, ResponseHeader, Writer};

/// Bytes of the length that leads a frame.
pub const LENGTH_BYTES: usize = 4;

/// Why a frame cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is negative.
    #[error("a frame claims {0} bytes")]
    Negative(i32),
    /// The length is above the limit.
    #[error("a frame of {len} bytes is larger than the {max} allowed")]
    TooLarge {
        /// What the frame claims.
        len: usize,
        /// What is allowed.
        max: usize,
    },
}

/// The length of the frame that follows its four leading bytes.
pub fn length(prefix: [u8; LENGTH_BYTES], max: usize) -> Result<usize, FrameError> {
    let claimed = i32::from_be_bytes(prefix);
    let len = usize::try_from(claimed).map_err(|_| FrameError::Negative(claimed))?;
    if len > max {
        return Err(FrameError::TooLarge { len, max });
    }
    Ok(len)
}

/// A whole frame, its length included, in pieces for a vectored write.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The pieces in order, none of them empty.
    pub segments: Vec<Bytes>,
    /// Bytes in all of them.
    pub len: usize,
}

impl Frame {
    fn finish(mut w: Writer) -> Result<Frame, EncodeError> {
        w.patch_length()?;
        let len = w.len();
        Ok(Frame {
            segments: w.into_segments(),
            len,
        })
    }

    /// The frame in one piece. Copies if there are several.
    pub fn into_bytes(self) -> Bytes {
        crate::Records::from(self.segments).into_bytes()
    }
}

/// Frames the answer to a request of this version and correlation id.
pub fn response<M: Response>(message: &M, version: i16, correlation_id: i32) -> Result<Frame, EncodeError> {
    let mut w = Writer::framed();
    ResponseHeader::new(correlation_id).write(M::KEY, version, &mut w)?;
    message.encode(version, &mut w)?;
    Frame::finish(w)
}

/// Frames a request, as a client does.
pub fn request<M: Request>(
    message: &M,
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
) -> Result<Frame, EncodeError> {
    let mut w = Writer::framed();
    let header = RequestHeader {
        api_key: M::KEY,
        api_version: version,
        correlation_id,
        client_id: client_id.map(Into::into),
        unknown: Default::default(),
    };
    header.write(&mut w)?;
    message.encode(version, &mut w)?;
    Frame::finish(w)
}
