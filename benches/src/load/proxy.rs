//! What cold reads are held against: segments copied from the store to sockets, and nothing else.

use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use drumlin_objects::stats::Reason;
use drumlin_objects::{Bucket, BucketOptions, Env};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::load::summary::Summary;
use crate::process::cpu_seconds;

/// Bytes of one GET.
const RANGE: u64 = 8 << 20;

/// Serves the segments of a store, dealt out over so many connections, on `listen`; prints the address, and ends when
/// all have been served.
pub fn serve(store: &str, listen: &str, connections: usize, bytes: u64) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let env = Env::real();
        let bucket = Bucket::open(store, &env, &BucketOptions::default())?;
        let all = bucket.list("topic/", None, Reason::Check).await?;
        let mut left = bytes;
        let mut segments: Vec<(String, u64)> = Vec::new();
        for found in all.into_iter().filter(|o| o.key.contains("/segment/")) {
            if left == 0 {
                break;
            }
            let take = found.size.min(left);
            left -= take;
            segments.push((found.key, take));
        }
        if segments.is_empty() {
            bail!("the store has no segments");
        }
        let segments = Arc::new(segments);
        let listener = TcpListener::bind(listen).await?;
        println!("{}", listener.local_addr()?);
        let mut serving = Vec::new();
        for part in 0..connections {
            let (mut socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            let (bucket, segments) = (bucket.clone(), Arc::clone(&segments));
            serving.push(tokio::spawn(async move {
                let mine: Vec<_> = segments.iter().skip(part).step_by(connections).cloned().collect();
                send(&bucket, &mine, &mut socket).await
            }));
        }
        for task in serving {
            task.await??;
        }
        Ok(())
    })
}

/// One GET is under way while the one before is written.
async fn send(
    bucket: &Bucket,
    segments: &[(String, u64)],
    socket: &mut tokio::net::TcpStream,
) -> anyhow::Result<()> {
    let ranges: Vec<(String, std::ops::Range<u64>)> = segments
        .iter()
        .flat_map(|(key, size)| {
            (0..*size)
                .step_by(RANGE as usize)
                .map(move |at| (key.clone(), at..(at + RANGE).min(*size)))
        })
        .collect();
    let get = |at: usize| {
        let wanted = ranges.get(at).cloned();
        async move {
            match wanted {
                Some((key, range)) => Ok(Some(bucket.get_range(&key, range, Reason::Check).await?)),
                None => anyhow::Ok(None::<Bytes>),
            }
        }
    };
    let mut next = get(0).await?;
    let mut at = 0;
    while let Some(bytes) = next {
        at += 1;
        let (written, following) = tokio::join!(socket.write_all(&bytes), get(at));
        written?;
        next = following?;
    }
    socket.shutdown().await?;
    Ok(())
}

/// Reads what the proxy sends, to its end.
pub fn drain(address: &str, connections: usize, pid: Option<u32>) -> anyhow::Result<Summary> {
    let before = pid.map(cpu_seconds).transpose()?.unwrap_or(0.0);
    let began = Instant::now();
    let readers: Vec<_> = (0..connections)
        .map(|_| -> anyhow::Result<_> {
            let socket = TcpStream::connect(address)?;
            socket.set_read_timeout(Some(Duration::from_secs(60)))?;
            Ok(std::thread::spawn(move || discard(socket)))
        })
        .collect::<anyhow::Result<_>>()?;
    let mut summary = Summary::default();
    for reader in readers {
        summary.bytes += reader
            .join()
            .map_err(|_| anyhow::anyhow!("a reader panicked"))??;
    }
    summary.seconds = began.elapsed().as_secs_f64();
    summary.total_bytes = summary.bytes;
    // The proxy ends with its last byte; it may be gone by now.
    summary.cpu_seconds = pid
        .and_then(|pid| cpu_seconds(pid).ok())
        .map_or(0.0, |after| after - before);
    Ok(summary)
}

fn discard(mut socket: TcpStream) -> anyhow::Result<u64> {
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        match socket.read(&mut buffer).context("the proxy's connection")? {
            0 => return Ok(total),
            n => total += n as u64,
        }
    }
}
