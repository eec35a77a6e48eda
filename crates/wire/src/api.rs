//! APIs: what the schemas say of each, and which headers go with which version.

use crate::ApiKey;

/// What the schemas say of an API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// The API's name.
    pub name: &'static str,
    /// Oldest version that Kafka's own schema still declares valid.
    pub min_version: i16,
    /// Oldest version that the codec can read and write; below `min_version` for legacy versions.
    pub oldest_version: i16,
    /// Newest version that the codec can read and write.
    pub max_version: i16,
    /// Whether Kafka itself does not serve the newest version yet unless told to.
    pub unstable: bool,
    /// First flexible version; `i16::MAX` if there is none.
    pub flexible_from: i16,
}

impl ApiKey {
    /// The key as it stands in a request header.
    pub const fn as_i16(self) -> i16 {
        self as i16
    }

    /// The name, as in Kafka's documentation.
    pub const fn name(self) -> &'static str {
        self.schema().name
    }

    /// Whether requests and responses of this version have compact lengths and tagged fields.
    pub const fn is_flexible(self, version: i16) -> bool {
        version >= self.schema().flexible_from
    }

    /// Whether headers of this version have tagged fields. As with Kafka, an API whose versions are all flexible
    /// has them in any version, known or not.
    const fn has_flexible_header(self, version: i16) -> bool {
        let schema = self.schema();
        schema.flexible_from <= schema.min_version || version >= schema.flexible_from
    }

    /// The version of the request header. Defined for any version, known or not, so that a request of an
    /// unknown one can be told from garbage and answered.
    pub const fn request_header_version(self, version: i16) -> i16 {
        if self.has_flexible_header(version) { 2 } else { 1 }
    }

    /// The version of the response header.
    pub const fn response_header_version(self, version: i16) -> i16 {
        match self {
            // Always 0: the client may not know yet which version the broker answered in (KIP-511).
            ApiKey::ApiVersions => 0,
            _ if self.has_flexible_header(version) => 1,
            _ => 0,
        }
    }
}

impl std::fmt::Display for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl TryFrom<i16> for ApiKey {
    type Error = i16;

    fn try_from(key: i16) -> Result<ApiKey, i16> {
        ApiKey::from_i16(key).ok_or(key)
    }
}
