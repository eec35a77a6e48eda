//! `kill -9` of the broker while members join, read and commit: no offset that was
//! committed goes back, and every group goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use drumlin_tests::ledger;
use drumlin_tests::members::{Commit, Kind, Member, Plan, refs, seen, shared, wait_until};
use drumlin_tests::stage::{Stage, Topic};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const PARTITIONS: i32 = 4;
const KILLS: usize = 6;
const PATIENCE: Duration = Duration::from_secs(60);

/// A group, its members, and the furthest that it is known to have committed.
struct Group {
    kinds: [Kind; 2],
    plan: Plan,
    members: Vec<Member>,
    gone: Vec<Member>,
    furthest: BTreeMap<i32, i64>,
}

impl Group {
    fn new(stage: &Stage, kinds: [Kind; 2], plan: Plan) -> Group {
        let members = (0..2)
            .map(|n| stage.member(kinds[n], &plan, &n.to_string()))
            .collect();
        Group {
            kinds,
            plan,
            members,
            gone: Vec::new(),
            furthest: BTreeMap::new(),
        }
    }

    fn remember(&mut self, partition: i32, offset: i64) {
        let furthest = self.furthest.entry(partition).or_default();
        *furthest = offset.max(*furthest);
    }

    /// What members were told to be committed counts.
    fn hear(&mut self) {
        let mut told = Vec::new();
        for member in self.members.iter_mut().chain(&mut self.gone) {
            member.look().expect("what it told");
            told.extend(member.committed.clone());
        }
        told.into_iter().for_each(|(p, o)| self.remember(p, o));
    }

    /// Nothing that was committed is gone; what is there now counts from now on.
    fn check(&mut self, stage: &Stage, when: &str) {
        let now = stage.committed(&self.plan, PARTITIONS);
        for (p, furthest) in &self.furthest {
            let offset = now.get(p).copied().unwrap_or(-1);
            assert!(
                offset >= *furthest,
                "{}, partition {p}, {when}: {furthest} was committed, now it is {offset}",
                self.plan.group
            );
        }
        now.into_iter().for_each(|(p, o)| self.remember(p, o));
    }

    fn caught_up(&mut self, stage: &Stage, topic: &Topic) {
        let (fed, gone) = (&topic.fed, &self.gone);
        let count = (topic.fed.len() / PARTITIONS as usize) as i64;
        let what = format!("{} has seen and committed everything", self.plan.group);
        let plan = &self.plan;
        wait_until(&what, PATIENCE, &mut refs(&mut self.members), |m| {
            let mut values = seen(m);
            values.extend(gone.iter().flat_map(Member::values));
            let committed = || stage.committed(plan, PARTITIONS);
            shared(m, PARTITIONS)
                && values == *fed
                && committed().values().filter(|o| **o == count).count() == PARTITIONS as usize
        })
        .expect("it caught up");
    }
}

#[test]
fn no_committed_offset_goes_back() {
    let seed = ledger::seed();
    println!("DRUMLIN_LEDGER_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut stage = Stage::with("group-crashes", |options| options.sealing_often());
    let mut topic = stage.topic("t", PARTITIONS);
    topic.feed(20);
    let plan = |stage: &Stage, group: &str| stage.plan(&topic, group).batch(10);
    let mut groups = vec![
        Group::new(
            &stage,
            [Kind::Confluent, Kind::KafkaPython],
            plan(&stage, "classic"),
        ),
        Group::new(
            &stage,
            [Kind::Confluent; 2],
            plan(&stage, "new").consumer_protocol(),
        ),
        Group::new(
            &stage,
            [Kind::Sarama, Kind::Aiokafka],
            plan(&stage, "automatic").commit(Commit::Auto),
        ),
    ];
    for group in &mut groups {
        group.caught_up(&stage, &topic);
    }
    for kill in 0..KILLS {
        topic.feed(100);
        std::thread::sleep(Duration::from_millis(random.random_range(50..400)));
        // One joins or leaves as the broker dies.
        let which = random.random_range(0..groups.len());
        let group = &mut groups[which];
        if group.members.len() > 2 {
            let mut leaver = group.members.remove(0);
            leaver.die().expect("killed");
            group.gone.push(leaver);
        } else {
            let kind = group.kinds[kill % 2];
            group
                .members
                .push(stage.member(kind, &group.plan, &format!("joined-{kill}")));
        }
        std::thread::sleep(Duration::from_millis(random.random_range(0..1_200)));
        stage.broker.kill9().expect("killed");
        groups.iter_mut().for_each(Group::hear);
        stage.broker.restart().expect("started again");
        topic.reconnect(&stage);
        for group in &mut groups {
            group.check(&stage, &format!("after kill {kill} of seed {seed}"));
        }
    }
    for group in &mut groups {
        group.caught_up(&stage, &topic);
        group.hear();
        group.check(&stage, "at the end");
    }
    stage.broker.terminate().expect("stopped");
    stage.broker.restart().expect("started again");
    for group in &mut groups {
        group.check(&stage, "after it was stopped and started");
        for member in &mut group.members {
            member.leave().expect("it leaves");
        }
    }
}
