//! Connections that do nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::Context;
use drumlin_tests::client::Connection;

/// ApiVersions, version 0, correlation id 1, no client id.
const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];

/// Opens connections that each have had one request answered.
pub fn connections(bootstrap: &str, count: usize) -> anyhow::Result<Vec<TcpStream>> {
    (0..count)
        .map(|i| one(bootstrap).with_context(|| format!("connection {i}")))
        .collect()
}

fn one(bootstrap: &str) -> anyhow::Result<TcpStream> {
    let mut socket = TcpStream::connect(bootstrap)?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    socket.write_all(&REQUEST)?;
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let mut body = vec![0; usize::try_from(i32::from_be_bytes(length))?];
    socket.read_exact(&mut body)?;
    Ok(socket)
}

/// Creates topics of a thousand partitions each until there are so many.
pub fn partitions(bootstrap: &str, count: usize) -> anyhow::Result<()> {
    let mut connection = Connection::open(bootstrap, Duration::from_secs(60))?;
    for topic in 0..count.div_ceil(1_000) {
        let here = (count - topic * 1_000).min(1_000);
        connection.create_topic(&format!("many-{topic:04}"), i32::try_from(here)?, &[])?;
    }
    Ok(())
}
