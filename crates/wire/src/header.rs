//! Headers of requests and responses.
//!
//! Written by hand, because they break the rules of the generated codec: the API decides their version, and
//! a request's client id keeps its two-byte length even in the flexible version 2.

use bytes::Bytes;

use crate::{ApiKey, DecodeError, EncodeError, Reader, Str, UnknownTags, Writer, limits};

/// The header of a request, version 1 or 2. (Version 0, without a client id, went with ControlledShutdown 0.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    /// The API.
    pub api_key: ApiKey,
    /// The version of the request, which the codec may not know.
    pub api_version: i16,
    /// What the response repeats.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<Str>,
    /// Tagged fields; none is known as yet.
    pub unknown: UnknownTags,
}

/// Why a frame has no request header that can be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// No API has the key.
    #[error("no API has key {key} (version {version})")]
    UnknownApi {
        /// The key.
        key: i16,
        /// The version asked for.
        version: i16,
    },
    /// The bytes are no header.
    #[error("malformed request header: {0}")]
    Malformed(#[from] DecodeError),
}

impl RequestHeader {
    /// Splits a frame (without its length) into header and body.
    ///
    /// The version is not held against any range: that is for the [registry](crate::registry), and ApiVersions of
    /// an unknown version must be answered.
    pub fn parse(frame: &Bytes) -> Result<(RequestHeader, Bytes), HeaderError> {
        let mut r = Reader::new(frame, limits::HEADER_CAP);
        let (key, version) = (r.i16()?, r.i16()?);
        let api_key = ApiKey::from_i16(key).ok_or(HeaderError::UnknownApi { key, version })?;
        let correlation_id = r.i32()?;
        let client_id = r.nullable_string(false)?;
        let unknown = match api_key.request_header_version(version) {
            2 => r.unknown_tags()?,
            _ => UnknownTags::default(),
        };
        let body = frame.slice(frame.len() - r.remaining()..);
        Ok((
            RequestHeader {
                api_key,
                api_version: version,
                correlation_id,
                client_id,
                unknown,
            },
            body,
        ))
    }

    /// Writes it, as a client does.
    pub fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.i16(self.api_key.as_i16());
        w.i16(self.api_version);
        w.i32(self.correlation_id);
        w.nullable_string(self.client_id.as_ref(), false)?;
        if self.api_key.request_header_version(self.api_version) == 2 {
            w.unknown_tags(&self.unknown)?;
        }
        Ok(())
    }
}

/// The header of a response, version 0 or 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHeader {
    /// That of the request.
    pub correlation_id: i32,
    /// Tagged fields; none is known as yet.
    pub unknown: UnknownTags,
}

impl ResponseHeader {
    /// A header without tagged fields.
    pub fn new(correlation_id: i32) -> ResponseHeader {
        ResponseHeader {
            correlation_id,
            unknown: UnknownTags::default(),
        }
    }

    /// Splits a frame (without its length) into header and body, as a client does that knows what it asked.
    pub fn parse(frame: &Bytes, key: ApiKey, version: i16) -> Result<(ResponseHeader, Bytes), DecodeError> {
        let mut r = Reader::new(frame, limits::HEADER_CAP);
        let correlation_id = r.i32()?;
        let unknown = match key.response_header_version(version) {
            0 => UnknownTags::default(),
            _ => r.unknown_tags()?,
        };
        let body = frame.slice(frame.len() - r.remaining()..);
        Ok((
            ResponseHeader {
                correlation_id,
                unknown,
            },
            body,
        ))
    }

    /// Writes it for an answer to a request of this version.
    pub fn write(&self, key: ApiKey, version: i16, w: &mut Writer) -> Result<(), EncodeError> {
        w.i32(self.correlation_id);
        if key.response_header_version(version) > 0 {
            w.unknown_tags(&self.unknown)?;
        }
        Ok(())
    }
}
