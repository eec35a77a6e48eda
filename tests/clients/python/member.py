"""A member of a consumer group around one Python client, for the end-to-end tests.

usage: member.py kafka-python|confluent-kafka|aiokafka JSON

Runs until SIGTERM, upon which it leaves. What happens is told as JSON lines on
standard output: {"assigned": [partitions], "generation": n} whenever what it owns has
changed, {"p": partition, "o": offset, "v": value} for each record, before it is
committed, {"committed": {partition: offset}} for each commit it knows to have been
accepted, {"left": true} at the end.
"""

import asyncio
import json
import signal
import sys
import time

STOP = False


def stop(*_):
    global STOP
    STOP = True


def tell(**event):
    event["at"] = round(time.time() * 1000)
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def tell_records(records):
    """Each is (partition, offset, value)."""
    lines = [json.dumps({"p": p, "o": o, "v": (v or b"").decode("utf-8", "replace")}) for p, o, v in records]
    if lines:
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()


def next_offsets(records):
    """What to commit once these have been told."""
    found = {}
    for p, o, _ in records:
        found[p] = max(found.get(p, 0), o + 1)
    return found


def told_offsets(found):
    return {str(p): o for p, o in sorted(found.items())}


def heartbeat_ms(a):
    """Often enough for a long session too: heartbeats are also how a member hears of a rebalance."""
    return max(100, min(1000, a["session_ms"] // 4))


def confluent(a):
    from confluent_kafka import Consumer, KafkaException, TopicPartition

    new = a["protocol"] == "consumer"
    # Of a KIP-848 or cooperative group the callbacks tell differences.
    incremental = new or a.get("assignor") == "cooperative-sticky"
    owned = set()
    topic_of = {}

    def assigned(consumer, partitions):
        numbers = {p.partition for p in partitions}
        if incremental:
            consumer.incremental_assign(partitions)
            owned.update(numbers)
        else:
            consumer.assign(partitions)
            owned.clear()
            owned.update(numbers)
        tell(assigned=sorted(owned))

    def revoked(consumer, partitions):
        owned.difference_update(p.partition for p in partitions)
        tell(assigned=sorted(owned), revoked=True)
        if incremental:
            consumer.incremental_unassign(partitions)
        else:
            consumer.unassign()

    def lost(consumer, partitions):
        owned.difference_update(p.partition for p in partitions)
        tell(assigned=sorted(owned), lost=True)
        if incremental:
            consumer.incremental_unassign(partitions)
        else:
            consumer.unassign()

    # What is to be committed still: a commit that a rebalance refuses is made again.
    pending = {}

    def postpone(partitions):
        for p in partitions:
            if p.offset >= 0:
                pending[p.partition] = max(pending.get(p.partition, 0), p.offset)

    def committed(error, partitions):
        if error is not None:
            postpone(partitions)
        else:
            tell(committed={str(p.partition): p.offset for p in partitions if p.offset >= 0})

    settings = {
        "bootstrap.servers": a["bootstrap"],
        "group.id": a["group"],
        "client.id": a.get("client", "confluent-kafka"),
        "auto.offset.reset": "earliest",
        "enable.auto.commit": a["commit"] == "auto",
        "auto.commit.interval.ms": 200,
        "on_commit": committed,
        "group.protocol": a["protocol"],
        # Brokers come and go in these tests.
        "reconnect.backoff.max.ms": 500,
        "topic.metadata.refresh.interval.ms": 2000,
    }
    if not new:
        settings["session.timeout.ms"] = a["session_ms"]
        settings["heartbeat.interval.ms"] = heartbeat_ms(a)
        settings["partition.assignment.strategy"] = a.get("assignor") or "range"
    elif a.get("assignor"):
        settings["group.remote.assignor"] = a["assignor"]
    if a.get("instance"):
        settings["group.instance.id"] = a["instance"]
    consumer = Consumer(settings)
    consumer.subscribe(a["topics"], on_assign=assigned, on_revoke=revoked, on_lost=lost)
    while not STOP:
        got = [m for m in consumer.consume(a.get("batch", 500), timeout=0.1) if not m.error()]
        records = [(m.partition(), m.offset(), m.value()) for m in got]
        topic_of.update({m.partition(): m.topic() for m in got})
        tell_records(records)
        if a["commit"] not in ("sync", "async"):
            continue
        pending.update(next_offsets(records))
        # Who has a partition now goes on from what is committed.
        wanted = [TopicPartition(topic_of[p], p, o) for p, o in pending.items() if p in owned]
        pending.clear()
        if not wanted:
            continue
        try:
            # The callback tells of asynchronous commits.
            if a["commit"] == "sync":
                done = consumer.commit(offsets=wanted, asynchronous=False)
                tell(committed={str(p.partition): p.offset for p in done if p.error is None})
                postpone([p for p in done if p.error is not None])
            else:
                consumer.commit(offsets=wanted, asynchronous=True)
        except KafkaException as e:
            postpone(wanted)
            tell(refused=str(e))
    consumer.close()


def kafka_python(a):
    from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
    from kafka.coordinator.assignors.range import RangePartitionAssignor
    from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
    from kafka.errors import KafkaError
    from kafka.structs import OffsetAndMetadata

    assignors = {"range": RangePartitionAssignor, "roundrobin": RoundRobinPartitionAssignor}
    consumer = KafkaConsumer(
        bootstrap_servers=a["bootstrap"],
        group_id=a["group"],
        client_id=a.get("client", "kafka-python"),
        group_instance_id=a.get("instance") or None,
        auto_offset_reset="earliest",
        enable_auto_commit=a["commit"] == "auto",
        auto_commit_interval_ms=200,
        session_timeout_ms=a["session_ms"],
        heartbeat_interval_ms=heartbeat_ms(a),
        reconnect_backoff_max_ms=500,
        metadata_max_age_ms=2000,
        max_poll_records=a.get("batch", 500),
        partition_assignment_strategy=[assignors[a.get("assignor") or "range"]],
    )

    def generation():
        return consumer._coordinator._generation.generation_id

    class Listener(ConsumerRebalanceListener):
        def on_partitions_assigned(self, assigned):
            tell(assigned=sorted(p.partition for p in consumer.assignment()), generation=generation())

        def on_partitions_revoked(self, revoked):
            tell(assigned=[], revoked=True)

    consumer.subscribe(a["topics"], listener=Listener())

    def done(offsets, answer):
        if not isinstance(answer, Exception):
            tell(committed={str(p.partition): o.offset for p, o in offsets.items()})

    while not STOP:
        for where, got in consumer.poll(timeout_ms=100).items():
            records = [(r.partition, r.offset, r.value) for r in got]
            tell_records(records)
            wanted = {
                TopicPartition(where.topic, p): OffsetAndMetadata(o, "", -1)
                for p, o in next_offsets(records).items()
            }
            try:
                if a["commit"] == "sync":
                    consumer.commit(wanted)
                    done(wanted, None)
                elif a["commit"] == "async":
                    consumer.commit_async(wanted, callback=done)
            except KafkaError as e:
                tell(refused=repr(e))
    consumer.close()


async def aio(a):
    from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
    from aiokafka.coordinator.assignors.range import RangePartitionAssignor
    from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
    from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
    from aiokafka.errors import KafkaConnectionError, KafkaError

    assignors = {
        "range": RangePartitionAssignor,
        "roundrobin": RoundRobinPartitionAssignor,
        "sticky": StickyPartitionAssignor,
    }
    consumer = AIOKafkaConsumer(
        bootstrap_servers=a["bootstrap"],
        group_id=a["group"],
        client_id=a.get("client", "aiokafka"),
        group_instance_id=a.get("instance") or None,
        auto_offset_reset="earliest",
        enable_auto_commit=a["commit"] == "auto",
        auto_commit_interval_ms=200,
        session_timeout_ms=a["session_ms"],
        heartbeat_interval_ms=heartbeat_ms(a),
        rebalance_timeout_ms=10000,
        metadata_max_age_ms=2000,
        retry_backoff_ms=100,
        partition_assignment_strategy=[assignors[a.get("assignor") or "range"]],
    )

    class Listener(ConsumerRebalanceListener):
        async def on_partitions_assigned(self, assigned):
            generation = consumer._coordinator.generation
            tell(assigned=sorted(p.partition for p in assigned), generation=generation)

        async def on_partitions_revoked(self, revoked):
            tell(assigned=[], revoked=True)

    consumer.subscribe(a["topics"], listener=Listener())
    # Brokers come and go in these tests: of those that it is told of at first one must answer.
    started = False
    while not started and not STOP:
        try:
            await consumer.start()
            started = True
        except KafkaConnectionError as e:
            tell(trouble=repr(e))
            await asyncio.sleep(0.1)
    while not STOP:
        for where, got in (await consumer.getmany(timeout_ms=100, max_records=a.get("batch", 500))).items():
            records = [(r.partition, r.offset, r.value) for r in got]
            tell_records(records)
            if a["commit"] not in ("sync", "async"):
                continue
            wanted = next_offsets(records)
            commit = consumer.commit({TopicPartition(where.topic, p): o for p, o in wanted.items()})

            async def finish(commit=commit, wanted=wanted):
                try:
                    await commit
                    tell(committed=told_offsets(wanted))
                except KafkaError as e:
                    tell(refused=repr(e))

            if a["commit"] == "sync":
                await finish()
            else:
                asyncio.ensure_future(finish())
    # It does not tell its listener that it gives up what it has.
    tell(assigned=[], revoked=True)
    await consumer.stop()


def main():
    client, text = sys.argv[1:]
    a = json.loads(text)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if client == "aiokafka":
        asyncio.run(aio(a))
    else:
        {"confluent-kafka": confluent, "kafka-python": kafka_python}[client](a)
    tell(left=True)


if __name__ == "__main__":
    main()
