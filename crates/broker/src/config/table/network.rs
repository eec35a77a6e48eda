//! Who this broker is, where it listens, and what bounds its connections and requests.

use super::reasons::THREADS;
use crate::config::spec::OptionSpec;

// One row an option, so that rows can be compared and searched.
#[rustfmt::skip]
pub(super) const NETWORK: &[OptionSpec] = &[
    OptionSpec::list("advertised.listeners").doc("Addresses that clients are told to connect to, as `NAME://host:port`. Not given: those of `listeners`, with this machine's name where a listener has no host."),
    OptionSpec::int("background.threads").default("10").at_least(1).cluster_wide().kept(THREADS),
    OptionSpec::int("broker.id").default("-1").between(-1, 2147483647).doc("Older name of `node.id`; where both are given they must be equal. -1 means not given."),
    OptionSpec::string("broker.rack").doc("Rack or availability zone of this broker, as told to clients in Metadata."),
    OptionSpec::long("connections.max.idle.ms").default("600000").doc("A connection without a request for this long is closed."),
    OptionSpec::list("controller.listener.names").default("").doc("Listener names that belong to Kafka's controller. They are taken and not opened: the controller is a part of the broker."),
    OptionSpec::int("delete.records.purgatory.purge.interval.requests").default("1").kept(THREADS),
    OptionSpec::int("fetch.max.bytes").default("57671680").at_least(1024).doc("Most bytes of records in one fetch response, whatever the client asks for; one batch is always returned."),
    OptionSpec::int("fetch.purgatory.purge.interval.requests").default("1000").kept(THREADS),
    OptionSpec::string("inter.broker.listener.name").doc("Name of the listener that brokers use among each other. Not given: the one that `security.inter.broker.protocol` names, else the first."),
    OptionSpec::string("listener.security.protocol.map").default("SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT").doc("Security protocol of each listener name, as `NAME:PROTOCOL`, comma separated. Only PLAINTEXT can be opened so far; a listener that would need TLS or SASL is refused at start."),
    OptionSpec::list("listeners").default("PLAINTEXT://localhost:9092").doc("Addresses to listen on, as `NAME://host:port`, comma separated. No host means every interface, port 0 a free port. Kafka's default listens on every interface."),
    OptionSpec::int("max.connections").default("2147483647").at_least(0).cluster_wide().doc("How many connections this broker holds; a further one is closed at once."),
    OptionSpec::int("max.connections.per.ip").default("2147483647").at_least(0).cluster_wide().doc("How many connections one client address may hold."),
    OptionSpec::string("max.connections.per.ip.overrides").default("").cluster_wide().doc("Other bounds for single addresses, as `address:count`, comma separated."),
    OptionSpec::int("max.incremental.fetch.session.cache.slots").default("1000").at_least(0).doc("How many incremental fetch sessions are kept."),
    OptionSpec::int("max.request.partition.size.limit").default("2000").at_least(1).doc("Most partitions in one DescribeTopicPartitions response."),
    OptionSpec::int("node.id").default("1").between(0, 2147483647).doc("Id of this broker in the cluster, unique and never negative. `broker.id` is taken as another name for it."),
    OptionSpec::int("num.io.threads").default("8").at_least(1).cluster_wide().kept(THREADS),
    OptionSpec::int("num.network.threads").default("3").at_least(1).cluster_wide().kept(THREADS),
    OptionSpec::list("process.roles").default("broker,controller").subset_of(&["broker", "controller"]).doc("Roles of this process. `broker` must be among them; one process is always its own controller, so `controller` changes nothing."),
    OptionSpec::int("producer.purgatory.purge.interval.requests").default("1000").kept(THREADS),
    OptionSpec::long("queued.max.request.bytes").default("268435456").doc("Bytes of requests that are read and not yet answered, over all connections; over it no further request is read. -1 means no bound, which is Kafka's default."),
    OptionSpec::int("queued.max.requests").default("500").at_least(1).kept(THREADS),
    OptionSpec::int("request.timeout.ms").default("30000").doc("How long a change of metadata (creating a topic, altering a config) may wait for the metadata log before it fails."),
    OptionSpec::string("security.inter.broker.protocol").default("PLAINTEXT").one_of(&["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]).doc("Protocol that picks the listener between brokers when `inter.broker.listener.name` is not given."),
    OptionSpec::int("socket.listen.backlog.size").default("50").at_least(1).doc("How many connections the system may hold that are not accepted yet."),
    OptionSpec::int("socket.receive.buffer.bytes").default("102400").doc("Receive buffer of every accepted socket (SO_RCVBUF); -1 leaves it to the system."),
    OptionSpec::int("socket.request.max.bytes").default("104857600").at_least(1).doc("Largest request frame that is read; a connection that announces a larger one is closed."),
    OptionSpec::int("socket.send.buffer.bytes").default("102400").doc("Send buffer of every accepted socket (SO_SNDBUF); -1 leaves it to the system."),
];
