//! Groups of every client library, in both protocols where it has them, and groups
//! whose members are of different languages.

use std::process::Command;
use std::time::Duration;

use drumlin_tests::members::{Commit, Kind, Member, Plan, refs, seen, shared, wait_until};
use drumlin_tests::stage::{Stage, Topic};
use drumlin_tests::{cache, process, scripts};

const PARTITIONS: i32 = 6;
const PATIENCE: Duration = Duration::from_secs(60);

/// A group and who is in it.
struct Cast {
    plans: Vec<(Kind, Plan)>,
    members: Vec<Member>,
}

impl Cast {
    fn of(plan: &Plan, kinds: &[Kind]) -> Cast {
        Cast {
            plans: kinds.iter().map(|k| (*k, plan.clone())).collect(),
            members: Vec::new(),
        }
    }

    /// Members of one group that differ in more than their kind.
    fn mixed(plans: Vec<(Kind, Plan)>) -> Cast {
        Cast {
            plans,
            members: Vec::new(),
        }
    }

    fn group(&self) -> &str {
        &self.plans[0].1.group
    }
}

/// All groups at once: each shares the partitions, reads and commits everything; then
/// the first member of each leaves, and the rest read on from where it had committed.
fn perform(stage: &Stage, topic: &mut Topic, casts: &mut [Cast]) {
    topic.feed(50);
    for cast in casts.iter_mut() {
        for (n, (kind, plan)) in cast.plans.iter().enumerate() {
            cast.members
                .push(stage.member(*kind, plan, &format!("{n}-{kind:?}").to_lowercase()));
        }
    }
    let fed = topic.fed.clone();
    let all_committed = |cast: &Cast, count: i64| {
        let offsets = stage.committed(&cast.plans[0].1, PARTITIONS);
        offsets.len() == PARTITIONS as usize && offsets.values().all(|o| *o == count)
    };
    for cast in casts.iter_mut() {
        let what = format!("{} shares and reads", cast.group());
        wait_until(&what, PATIENCE, &mut refs(&mut cast.members), |m| {
            shared(m, PARTITIONS) && seen(m) == fed
        })
        .expect("shared and read");
        wait_until(&what, PATIENCE, &mut [], |_| all_committed(cast, 50)).expect("all is committed");
    }
    let mut left = Vec::new();
    for cast in casts.iter_mut() {
        let mut first = cast.members.remove(0);
        first.leave().expect("it leaves");
        left.push(first);
    }
    topic.feed(50);
    let fed = topic.fed.clone();
    for (cast, first) in casts.iter_mut().zip(&left) {
        let what = format!("{} goes on with one less", cast.group());
        wait_until(&what, PATIENCE, &mut refs(&mut cast.members), |m| {
            let mut values = seen(m);
            values.extend(first.values());
            shared(m, PARTITIONS) && values == fed
        })
        .expect("shared again, and read");
        wait_until(&what, PATIENCE, &mut [], |_| all_committed(cast, 100)).expect("all is committed");
    }
    for member in casts.iter_mut().flat_map(|c| &mut c.members) {
        member.leave().expect("it leaves");
    }
}

#[test]
fn sarama_with_each_assignor_and_node_clients() {
    let stage = Stage::new("clients-group");
    let mut topic = stage.topic("t", PARTITIONS);
    let plan = |group: &str| stage.plan(&topic, group);
    let sarama = [Kind::Sarama; 2];
    let mut casts = [
        Cast::of(&plan("sarama-range").assignor("range"), &sarama),
        Cast::of(
            &plan("sarama-roundrobin")
                .assignor("roundrobin")
                .commit(Commit::Auto),
            &sarama,
        ),
        Cast::of(
            &plan("sarama-sticky").assignor("sticky").commit(Commit::Auto),
            &sarama,
        ),
        Cast::of(&plan("kafkajs"), &[Kind::Kafkajs; 2]),
        Cast::of(&plan("platformatic"), &[Kind::Platformatic; 2]),
    ];
    perform(&stage, &mut topic, &mut casts);
}

#[test]
fn python_clients_with_other_assignors() {
    let stage = Stage::new("clients-python");
    let mut topic = stage.topic("t", PARTITIONS);
    let plan = |group: &str| stage.plan(&topic, group);
    let mut casts = [
        Cast::of(&plan("aiokafka").assignor("roundrobin"), &[Kind::Aiokafka; 2]),
        Cast::of(
            &plan("kafka-python").assignor("roundrobin").commit(Commit::Async),
            &[Kind::KafkaPython; 2],
        ),
        Cast::of(
            &plan("confluent-cooperative").assignor("cooperative-sticky"),
            &[Kind::Confluent; 3],
        ),
        Cast::of(
            &plan("confluent-roundrobin")
                .assignor("roundrobin")
                .commit(Commit::Async),
            &[Kind::Confluent; 2],
        ),
    ];
    perform(&stage, &mut topic, &mut casts);
}

#[test]
fn clients_of_many_languages_in_one_group() {
    let stage = Stage::new("clients-mixed");
    let mut topic = stage.topic("t", PARTITIONS);
    let plan = stage.plan(&topic, "all-range");
    let java = plan
        .clone()
        .assignor("org.apache.kafka.clients.consumer.RangeAssignor");
    let everyone = vec![
        (Kind::Verifiable, java),
        (Kind::Confluent, plan.clone()),
        (Kind::KafkaPython, plan.clone()),
        (Kind::Aiokafka, plan.clone()),
        (Kind::Sarama, plan.clone()),
        (Kind::Kcat, plan.clone()),
    ];
    let new = stage.plan(&topic, "all-848").consumer_protocol();
    let new = [Kind::Confluent, Kind::Verifiable, Kind::Platformatic].map(|kind| (kind, new.clone()));
    // A classic member among those of KIP-848, as while a group is upgraded.
    let both = stage.plan(&topic, "both");
    let both = vec![
        (Kind::Confluent, both.clone()),
        (Kind::Confluent, both.consumer_protocol()),
    ];
    let mut casts = [
        Cast::mixed(everyone),
        Cast::mixed(new.to_vec()),
        Cast::mixed(both),
    ];
    perform(&stage, &mut topic, &mut casts);
}

#[test]
fn kafka_go_lists_groups_of_other_clients() {
    let stage = Stage::new("clients-list");
    let mut topic = stage.topic("t", 1);
    topic.feed(1);
    let mut members = [("by-sarama", Kind::Sarama), ("by-confluent", Kind::Confluent)]
        .map(|(group, kind)| stage.member(kind, &stage.plan(&topic, group), "only"));
    wait_until("both groups read", PATIENCE, &mut refs(&mut members), |m| {
        m.iter().all(|m| m.values() == topic.fed)
    })
    .expect("both read");
    let listed = scripts::groups_that_kafka_go_lists(&stage.broker.bootstrap()).expect("kafka-go");
    assert_eq!(listed, ["by-confluent", "by-sarama"]);
}

/// kafka-python as of brokers of other times: each reads what the one before has committed, and commits. Prints which
/// versions of OffsetFetch and OffsetCommit it spoke, and what it read.
const OFFSETS_OF_ALL_TIMES: &str = r#"
import json, sys
from kafka import KafkaConsumer, TopicPartition
from kafka.coordinator.consumer import ConsumerCoordinator as Coordinator
from kafka.structs import OffsetAndMetadata

spoken = []
def spy(name):
    real = getattr(Coordinator, name)
    def spying(self, *arguments):
        spoken.append(arguments[-1].API_VERSION)
        return real(self, *arguments)
    setattr(Coordinator, name, spying)
spy("_handle_offset_fetch_response")
spy("_handle_offset_commit_response")

one, other = TopicPartition(sys.argv[2], 0), TopicPartition(sys.argv[2], 1)
for n, version in enumerate([(0, 8, 1), (0, 8, 2), (0, 9), None, (0, 8, 1)]):
    del spoken[:]
    consumer = KafkaConsumer(bootstrap_servers=sys.argv[1], group_id="old", api_version=version,
                             enable_auto_commit=False)
    consumer.assign([one, other])
    read = consumer.committed(one, metadata=True)
    nothing = consumer.committed(other)
    consumer.commit({one: OffsetAndMetadata(n + 1, f"by {n}", -1)})
    again = consumer.committed(one)
    print(json.dumps([spoken, list(read)[:2] if read else None, nothing, again]))
    consumer.close(autocommit=False)
"#;

/// OffsetCommit 0 and 1 and OffsetFetch 0, which Apache Kafka 4 has no more: what old clients commit the new ones read,
/// and the other way round. (Not to be had against Kafka 4.)
#[test]
fn clients_of_old_brokers_keep_their_offsets() {
    if drumlin_tests::broker::against_kafka() {
        println!("skipped: Apache Kafka 4 does not serve these versions");
        return;
    }
    let stage = Stage::new("clients-old");
    let topic = stage.topic("t", 2);
    // Requests that a coordinator refuses while it loads are made again, and would be told too.
    assert_eq!(stage.committed(&stage.plan(&topic, "old"), 1), [].into());
    let mut python = Command::new(cache::python().expect("python"));
    python
        .args(["-c", OFFSETS_OF_ALL_TIMES])
        .args([&stage.broker.bootstrap(), "t"]);
    let told = process::run(python, PATIENCE).expect("kafka-python").stdout;
    let expected = [
        r#"[[0, 0, 0, 0], null, null, 1]"#,
        r#"[[1, 1, 1, 1], [1, "by 0"], null, 2]"#,
        r#"[[1, 1, 2, 1], [2, "by 1"], null, 3]"#,
        r#"[[8, 8, 8, 8], [3, "by 2"], null, 4]"#,
        r#"[[0, 0, 0, 0], [4, "by 3"], null, 5]"#,
    ];
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
    let plan = stage.plan(&topic, "old");
    assert_eq!(stage.committed(&plan, 1), [(0, 5)].into());
}
