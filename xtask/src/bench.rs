//! Where the comparison with Apache Kafka will start.

/// Runs the benchmarks; `quick` keeps them within ten minutes.
pub fn run(_quick: bool) -> anyhow::Result<()> {
    anyhow::bail!(
        "`cargo xtask bench` is not here yet: the load generator comes with the package `drumlin-benches`"
    )
}
