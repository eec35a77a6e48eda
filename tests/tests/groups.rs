//! The classic story of consumer groups, each step with real clients: one consumer
//! takes all partitions, two share, as many as partitions get one each, a spare one
//! waits and takes over when another leaves or dies, from the last committed offset.

use std::time::Duration;

use drumlin_tests::churn;
use drumlin_tests::members::{Commit, Kind, Plan, refs, seen, shared, wait_shared, wait_until};
use drumlin_tests::stage::{Stage, Topic, patient_groups};
use drumlin_tests::tools;

const PARTITIONS: i32 = 3;
const PATIENCE: Duration = Duration::from_secs(60);

/// The story, told by members of one kind.
fn story(stage: &Stage, kind: Kind, plan: &Plan, topic: &mut Topic) {
    topic.feed(50);
    let mut a = stage.member(kind, plan, "a");
    let fed = topic.fed.clone();
    wait_until("one takes all", PATIENCE, &mut [&mut a], |m| {
        m[0].assigned().len() == 3 && m[0].values() == fed
    })
    .expect("one consumer takes all partitions");

    let mut b = stage.member(kind, plan, "b");
    wait_shared("two share", PATIENCE, &mut [&mut a, &mut b], PARTITIONS).expect("two share");

    let mut c = stage.member(kind, plan, "c");
    wait_shared("one each", PATIENCE, &mut [&mut a, &mut b, &mut c], PARTITIONS).expect("one partition each");
    topic.feed(50);
    let fed = topic.fed.clone();
    wait_until("three see all", PATIENCE, &mut [&mut a, &mut b, &mut c], |m| {
        seen(m) == fed
    })
    .expect("three see all");

    // The spare one is whoever the assignor leaves without.
    let d = stage.member(kind, plan, "d");
    let mut all = vec![a, b, c, d];
    wait_until("a spare one", PATIENCE, &mut refs(&mut all), |m| {
        topic.connection.members_of(&plan.group).expect("members") == 4 && shared(m, PARTITIONS)
    })
    .expect("a spare one waits");

    // The spare one gets what one that leaves has had.
    let busy = all
        .iter()
        .position(|m| !m.assigned().is_empty())
        .expect("an owner");
    let mut leaver = all.remove(busy);
    leaver.leave().expect("it leaves");
    wait_shared("after one left", PATIENCE, &mut refs(&mut all), PARTITIONS)
        .expect("the spare one takes over");
    topic.feed(50);
    let fed = topic.fed.clone();
    wait_until("all is seen", PATIENCE, &mut refs(&mut all), |m| {
        let mut values = seen(m);
        values.extend(leaver.values());
        values == fed
    })
    .expect("all is seen after one left");

    // And what one that dies has had, from where that one had committed.
    wait_until("commits", PATIENCE, &mut refs(&mut all), |_| {
        stage.committed(plan, PARTITIONS).values().all(|o| *o == 150)
    })
    .expect("everything is committed");
    let mut dead = all.remove(0);
    let left = dead.assigned();
    dead.die().expect("killed");
    topic.feed(50);
    let fed = topic.fed.clone();
    let before: Vec<usize> = all.iter().map(|m| m.records.len()).collect();
    wait_until("after one died", PATIENCE, &mut refs(&mut all), |m| {
        let mut values = seen(m);
        values.extend(leaver.values());
        values.extend(dead.values());
        shared(m, PARTITIONS) && values == fed
    })
    .expect("what the dead one had is taken over");
    for p in left {
        let first = all
            .iter()
            .zip(&before)
            .filter_map(|(m, n)| m.records[*n..].iter().find(|r| r.partition == p))
            .map(|r| r.offset)
            .min();
        assert_eq!(first, Some(150), "partition {p} goes on where it was committed");
    }
    for member in &mut all {
        member.leave().expect("it leaves");
    }
}

#[test]
fn the_story_with_confluent_kafka() {
    let stage = Stage::new("story-confluent");
    let mut topic = stage.topic("story", PARTITIONS);
    story(
        &stage,
        Kind::Confluent,
        &stage.plan(&topic, "confluent"),
        &mut topic,
    );
}

#[test]
fn the_story_with_confluent_kafka_and_kip_848() {
    let stage = Stage::new("story-848");
    let mut topic = stage.topic("story", PARTITIONS);
    let plan = stage.plan(&topic, "confluent-848").consumer_protocol();
    story(&stage, Kind::Confluent, &plan, &mut topic);
}

#[test]
fn the_story_with_kcat() {
    let stage = Stage::new("story-kcat");
    let mut topic = stage.topic("story", PARTITIONS);
    let plan = stage.plan(&topic, "kcat").commit(Commit::Auto);
    story(&stage, Kind::Kcat, &plan, &mut topic);
}

#[test]
fn the_story_with_kafka_python() {
    let stage = Stage::new("story-python");
    let mut topic = stage.topic("story", PARTITIONS);
    story(
        &stage,
        Kind::KafkaPython,
        &stage.plan(&topic, "python"),
        &mut topic,
    );
}

/// One that dies has read more than it has committed: the next begins where the commits end.
#[test]
fn takeover_begins_at_the_commit_and_groups_do_not_disturb_each_other() {
    let stage = Stage::new("story-commits");
    let mut topic = stage.topic("story", PARTITIONS);
    topic.feed(100);
    let plan = stage.plan(&topic, "forgetful");
    let mut first = stage.member(Kind::KafkaPython, &plan, "first");
    wait_until("all is committed", PATIENCE, &mut [&mut first], |m| {
        m[0].committed.len() == 3 && m[0].committed.values().all(|o| *o == 100)
    })
    .expect("100 records of each are committed");
    first.leave().expect("it leaves");
    topic.feed(100);
    let total = topic.fed.len();
    let mut reader = stage.member(Kind::Confluent, &plan.clone().commit(Commit::Never), "reader");
    wait_until("the rest is read", PATIENCE, &mut [&mut reader], |m| {
        m[0].records.len() == total / 2
    })
    .expect("it begins where the first had committed, and reads the rest");
    assert!(reader.records.iter().all(|r| r.offset >= 100));
    reader.die().expect("killed");
    assert!(stage.committed(&plan, PARTITIONS).values().all(|o| *o == 100));

    // Another group in the meantime reads all, from the beginning, in each way to commit.
    let others = [
        (Kind::Confluent, Commit::Auto),
        (Kind::Confluent, Commit::Async),
        (Kind::KafkaPython, Commit::Async),
        (Kind::Aiokafka, Commit::Auto),
    ];
    let mut members = vec![stage.member(Kind::Kcat, &plan, "second")];
    let mut plans = Vec::new();
    for (kind, commit) in others {
        let plan = stage
            .plan(&topic, &format!("{kind:?}-{commit:?}").to_lowercase())
            .commit(commit)
            .patient();
        members.push(stage.member(kind, &plan, "only"));
        plans.push(plan);
    }
    let fed = topic.fed.clone();
    wait_until("all groups read", PATIENCE, &mut refs(&mut members), |m| {
        m[0].records.len() == total / 2
            && m[1..].iter().all(|m| m.values() == fed)
            && plans.iter().all(|p| {
                stage
                    .committed(p, PARTITIONS)
                    .values()
                    .filter(|o| **o == 200)
                    .count()
                    == 3
            })
    })
    .expect("each group reads all, and commits");
    assert!(members[0].records.iter().all(|r| r.offset >= 100));
    for member in &mut members[1..] {
        assert_eq!(member.records.len(), total, "nothing comes twice");
        member.leave().expect("it leaves");
    }
}

/// A consumer without a group reads where it is told to, and leaves no trace.
#[test]
fn a_consumer_without_a_group_keeps_its_own_offsets() {
    let stage = Stage::new("story-alone");
    let mut topic = stage.topic("story", PARTITIONS);
    topic.feed(100);
    let bootstrap = stage.broker.bootstrap();
    let read = |offset: &str, count: &str| {
        let arguments = [
            "-C", "-q", "-t", "story", "-p", "1", "-o", offset, "-c", count, "-f", "%o ",
        ];
        tools::kcat(&bootstrap, &arguments).expect("kcat reads").stdout
    };
    assert_eq!(read("40", "3"), "40 41 42 ");
    assert_eq!(read("43", "2"), "43 44 ", "it goes on where it wants to");
    assert_eq!(read("40", "1"), "40 ");
    let groups = tools::java(
        tools::Tool::ConsumerGroups,
        &["--bootstrap-server", &bootstrap, "--list"],
    )
    .expect("the list");
    assert_eq!(groups.stdout.trim(), "", "no group has come of it");
}

/// Members of a live group are replaced by those of KIP-848, and these by classic ones.
#[test]
fn a_live_group_moves_to_kip_848_and_back() {
    // Nobody is to be without an owner until a session is over; a busy machine needs more than three seconds for less.
    let session = Duration::from_secs(10);
    let stage = Stage::with("story-moves", |options| {
        options.set("group.consumer.session.timeout.ms", session.as_millis())
    });
    let bootstrap = stage.broker.bootstrap();
    let figures = churn::upgrades_and_back(&bootstrap, session, Duration::ZERO, stage.scratch.path())
        .expect("every promise is kept");
    println!("{figures:?}");
    assert_eq!((figures["upgrades"], figures["downgrades"]), (1, 1));
}

/// A static member that is started again soon has what it had, and nobody else notices.
#[test]
fn static_members_come_back_to_what_they_had() {
    let stage = Stage::with("story-static", patient_groups);
    let mut topic = stage.topic("story", PARTITIONS);
    for protocol in ["classic", "new"] {
        let mut plan = stage.plan(&topic, protocol).patient();
        if protocol == "new" {
            plan = plan.consumer_protocol();
        }
        let mut one = stage.member(Kind::Confluent, &plan.clone().instance("one"), "one");
        let mut two = stage.member(Kind::Confluent, &plan.clone().instance("two"), "two");
        wait_shared("two share", PATIENCE, &mut [&mut one, &mut two], PARTITIONS).expect("two share");
        let (had, changes) = (one.assigned(), two.owned.len());
        one.leave().expect("it stops without leaving the group");
        topic.feed(20);
        let mut again = stage.member(Kind::Confluent, &plan.clone().instance("one"), "one-again");
        let count = topic.fed.len() / PARTITIONS as usize;
        wait_until("it is back", PATIENCE, &mut [&mut again, &mut two], |m| {
            m[0].assigned() == had
                && stage
                    .committed(&plan, PARTITIONS)
                    .values()
                    .filter(|o| **o == count as i64)
                    .count()
                    == 3
        })
        .expect("it has what it had");
        assert_eq!(two.owned.len(), changes, "{protocol}: the other has not noticed");
        again.leave().expect("it stops");
        two.leave().expect("it stops");
    }
}

/// A pattern of KIP-848 is matched by the broker, against topics that come later too.
#[test]
fn patterns_take_topics_that_come_later() {
    let stage = Stage::new("story-patterns");
    let mut plan = stage
        .plan(&stage.topic("other", 1), "patterns")
        .consumer_protocol();
    plan.topic = "^sto-[a-c]".to_owned();
    stage.topic("sto-z", 1).feed(10);
    stage.topic("sto-a", PARTITIONS).feed(10);
    let mut member = stage.member(Kind::Confluent, &plan, "member");
    wait_until("what is there", PATIENCE, &mut [&mut member], |m| {
        m[0].records.len() == 30
    })
    .expect("it reads the topic that is there");
    stage.topic("sto-b", PARTITIONS).feed(10);
    wait_until("what comes later", PATIENCE, &mut [&mut member], |m| {
        m[0].records.len() == 60
    })
    .expect("it reads the topic that came later");
    member.leave().expect("it leaves");
}
