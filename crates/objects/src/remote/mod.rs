//! Stores on the network: their settings, their credentials, and what not all of them can do.

mod connector;
mod credentials;
mod s3;
mod settings;
mod vendors;

pub(crate) use credentials::NoCredentials;
pub(crate) use s3::S3Store;
pub(crate) use vendors::{Variables, open_azure, open_google, open_s3};
