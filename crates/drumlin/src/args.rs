//! The command line.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use drumlin_broker::config::{BrokerConfig, Live, Loaded, Settings, Sources};

/// A Kafka-compatible broker whose log lives in object storage.
#[derive(Parser, Debug)]
#[command(version, about, propagate_version = true)]
pub struct Arguments {
    #[command(flatten)]
    pub configuration: Configuration,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Where the configuration comes from; environment variables like KAFKA_LISTENERS stand between file and --set.
#[derive(Args, Debug)]
pub struct Configuration {
    /// Properties file, as Kafka's server.properties
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// One option; may be given again, and wins over the file and the environment
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    pub set: Vec<String>,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the broker (what happens without a command)
    Serve,
    /// List every option with its default, unit and meaning
    Config {
        /// As the documentation's page
        #[arg(long)]
        markdown: bool,
    },
    /// Examine the object store
    #[command(subcommand)]
    Store(StoreCommand),
    /// Write a topic's log as a directory that stock Kafka tools and brokers read
    Export {
        /// The topic
        topic: String,
        /// Where to; made if it does not exist
        directory: PathBuf,
    },
}

#[derive(Subcommand, Debug)]
pub enum StoreCommand {
    /// Report every broken, missing or orphaned object; changes nothing
    Check,
    /// Test that the store's put-if-absent is atomic
    Probe,
    /// Go on without WAL objects that were deleted: the records that they held are lost
    GiveUp {
        /// Keys, as the refused start or `store check` names them
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
    },
}

impl Configuration {
    /// Reads it. The warnings are for the log.
    pub fn load(&self) -> anyhow::Result<(BrokerConfig, Vec<String>)> {
        let sources = Sources::of_process(self.config.as_deref(), self.set.clone())?;
        let Loaded { settings, warnings } = Settings::load(&sources)?;
        let config = BrokerConfig::new(Live::new(settings)).context("the configuration cannot be used")?;
        Ok((config, warnings))
    }
}
