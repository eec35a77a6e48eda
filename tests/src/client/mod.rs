//! A small blocking Kafka client of our own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Whether a broker answers an ApiVersions request there.
pub fn answers(bootstrap: &str) -> bool {
    // Key 18, version 0, correlation id 1, no client id.
    const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
    let attempt = || -> std::io::Result<bool> {
        let mut socket = TcpStream::connect(bootstrap)?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.write_all(&REQUEST)?;
        let mut head = [0; 10];
        socket.read_exact(&mut head)?;
        Ok(head[4..] == [0, 0, 0, 1, 0, 0])
    };
    attempt().unwrap_or(false)
}
