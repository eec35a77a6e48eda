//! What lies in the bucket.
//!
//! Start reading at [`env`](mod@env).
pub mod env;
pub use env::Env;
