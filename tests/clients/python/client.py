"""A command around one Python client for the end-to-end tests.

usage: client.py kafka-python|confluent-kafka|aiokafka produce|consume|offsets JSON
       client.py confluent-kafka topics|pattern JSON

One action a run; the result is one JSON line on standard output.
"""

import asyncio
import json
import sys
import time

PATIENCE_S = 30


def lines_of(path):
    with open(path, "rb") as source:
        return [line.rstrip(b"\n") for line in source]


class Sink:
    """Writes the values that were consumed and remembers what the result reports."""

    def __init__(self, a):
        self.count = a["count"]
        self.out = open(a["file"], "wb")
        self.seen = 0
        self.first = None
        self.last = None

    def take(self, offset, timestamp, value):
        if self.full():
            return
        if self.first is None:
            self.first = (offset, timestamp)
        self.last = offset
        self.out.write(value + b"\n")
        self.seen += 1

    def full(self):
        return self.seen >= self.count

    def result(self):
        self.out.close()
        if not self.full():
            raise TimeoutError(f"{self.seen} of {self.count} records within {PATIENCE_S} s")
        return {
            "consumed": self.seen,
            "first_offset": self.first[0],
            "first_timestamp": self.first[1],
            "last_offset": self.last,
        }


def check_offsets(offsets):
    for i, offset in enumerate(offsets):
        if offset != offsets[0] + i:
            raise AssertionError(f"record {i} got offset {offset} after first offset {offsets[0]}")
    return {"produced": len(offsets), "first_offset": offsets[0]}


class KafkaPython:
    def __init__(self, a):
        self.a = a

    def produce(self):
        from kafka import KafkaProducer

        a = self.a
        producer = KafkaProducer(
            bootstrap_servers=a["bootstrap"],
            acks="all",
            compression_type=a.get("compression") or None,
            linger_ms=5,
        )
        sent = [
            producer.send(a["topic"], value=value, partition=a["partition"], timestamp_ms=a["timestamp"] + i)
            for i, value in enumerate(lines_of(a["file"]))
        ]
        offsets = [s.get(timeout=PATIENCE_S).offset for s in sent]
        producer.close()
        return check_offsets(offsets)

    def consumer(self):
        from kafka import KafkaConsumer, TopicPartition

        where = TopicPartition(self.a["topic"], self.a["partition"])
        consumer = KafkaConsumer(bootstrap_servers=self.a["bootstrap"], enable_auto_commit=False, group_id=None)
        consumer.assign([where])
        return consumer, where

    def consume(self):
        consumer, where = self.consumer()
        consumer.seek(where, self.a["offset"])
        sink = Sink(self.a)
        end = time.monotonic() + PATIENCE_S
        while not sink.full() and time.monotonic() < end:
            for records in consumer.poll(timeout_ms=500).values():
                for r in records:
                    sink.take(r.offset, r.timestamp, r.value)
        consumer.close()
        return sink.result()

    def offsets(self):
        consumer, where = self.consumer()
        at = consumer.offsets_for_times({where: self.a["timestamp"]})[where]
        return {
            "earliest": consumer.beginning_offsets([where])[where],
            "latest": consumer.end_offsets([where])[where],
            "at": at.offset if at else -1,
        }


class Confluent:
    def __init__(self, a):
        self.a = a

    def produce(self):
        from confluent_kafka import Producer

        a = self.a
        producer = Producer(
            {
                "bootstrap.servers": a["bootstrap"],
                "enable.idempotence": True,
                "compression.type": a.get("compression") or "none",
                "linger.ms": 5,
            }
        )
        offsets, errors = [], []

        def delivered(error, message):
            if error:
                errors.append(str(error))
            else:
                offsets.append(message.offset())

        for i, value in enumerate(lines_of(a["file"])):
            producer.produce(
                a["topic"],
                value=value,
                partition=a["partition"],
                timestamp=a["timestamp"] + i,
                on_delivery=delivered,
            )
            producer.poll(0)
        left = producer.flush(PATIENCE_S)
        if left or errors:
            raise RuntimeError(f"{left} not delivered; {errors[:3]}")
        return check_offsets(offsets)

    def consumer(self):
        from confluent_kafka import Consumer

        return Consumer(
            {
                "bootstrap.servers": self.a["bootstrap"],
                "group.id": "unused",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
            }
        )

    def where(self, offset):
        from confluent_kafka import TopicPartition

        return TopicPartition(self.a["topic"], self.a["partition"], offset)

    def consume(self):
        consumer = self.consumer()
        consumer.assign([self.where(self.a["offset"])])
        sink = Sink(self.a)
        end = time.monotonic() + PATIENCE_S
        while not sink.full() and time.monotonic() < end:
            for m in consumer.consume(500, timeout=0.5):
                if m.error():
                    raise RuntimeError(str(m.error()))
                sink.take(m.offset(), m.timestamp()[1], m.value())
        consumer.close()
        return sink.result()

    def compact(self):
        """Makes the topic a compacted one."""
        from confluent_kafka.admin import (
            AdminClient,
            AlterConfigOpType,
            ConfigEntry,
            ConfigResource,
            ResourceType,
        )

        admin = AdminClient({"bootstrap.servers": self.a["bootstrap"]})
        values = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01"}
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
            for name, value in values.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, self.a["topic"], incremental_configs=entries)
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(timeout=PATIENCE_S)
        return {}

    def reach_end(self):
        """Reads from the start until librdkafka says that it is at the end."""
        from confluent_kafka import Consumer, KafkaError

        consumer = Consumer(
            {
                "bootstrap.servers": self.a["bootstrap"],
                "group.id": "unused",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
        )
        consumer.assign([self.where(0)])
        records, last = 0, -1
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            m = consumer.poll(0.5)
            if m is None:
                continue
            if m.error() is None:
                records, last = records + 1, m.offset()
            elif m.error().code() == KafkaError._PARTITION_EOF:
                consumer.close()
                return {"records": records, "last_offset": last}
            else:
                raise RuntimeError(str(m.error()))
        raise RuntimeError(f"no end after {records} records, the last at {last}")

    def offsets(self):
        consumer = self.consumer()
        earliest, latest = consumer.get_watermark_offsets(self.where(0), timeout=PATIENCE_S)
        at = consumer.offsets_for_times([self.where(self.a["timestamp"])], timeout=PATIENCE_S)[0]
        if at.error:
            raise RuntimeError(str(at.error))
        return {"earliest": earliest, "latest": latest, "at": at.offset}

    def topics(self):
        from confluent_kafka.admin import AdminClient

        admin = AdminClient({"bootstrap.servers": self.a["bootstrap"]})
        return {"topics": sorted(admin.list_topics(timeout=PATIENCE_S).topics)}

    def pattern(self):
        from confluent_kafka import Consumer

        # The classic protocol: the client itself asks for all topics and matches their names.
        consumer = Consumer(
            {
                "bootstrap.servers": self.a["bootstrap"],
                "group.id": self.a["group"],
                "auto.offset.reset": "earliest",
                "topic.metadata.refresh.interval.ms": 1000,
            }
        )
        consumer.subscribe([self.a["topic"]])
        values = []
        end = time.monotonic() + PATIENCE_S
        while len(values) < self.a["count"] and time.monotonic() < end:
            for m in consumer.consume(100, timeout=0.5):
                if m.error():
                    raise RuntimeError(str(m.error()))
                values.append(m.value().decode())
        consumer.close()
        return {"values": sorted(values)}


class Aio:
    def __init__(self, a):
        self.a = a

    def produce(self):
        return asyncio.run(self._produce())

    def consume(self):
        return asyncio.run(self._consume())

    def offsets(self):
        return asyncio.run(self._offsets())

    async def _produce(self):
        from aiokafka import AIOKafkaProducer

        a = self.a
        producer = AIOKafkaProducer(
            bootstrap_servers=a["bootstrap"],
            acks="all",
            enable_idempotence=True,
            compression_type=a.get("compression") or None,
            linger_ms=5,
        )
        await producer.start()
        try:
            sent = [
                await producer.send(
                    a["topic"], value=value, partition=a["partition"], timestamp_ms=a["timestamp"] + i
                )
                for i, value in enumerate(lines_of(a["file"]))
            ]
            return check_offsets([(await s).offset for s in sent])
        finally:
            await producer.stop()

    async def consumer(self):
        from aiokafka import AIOKafkaConsumer, TopicPartition

        where = TopicPartition(self.a["topic"], self.a["partition"])
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.a["bootstrap"], enable_auto_commit=False, group_id=None
        )
        await consumer.start()
        consumer.assign([where])
        return consumer, where

    async def _consume(self):
        consumer, where = await self.consumer()
        try:
            consumer.seek(where, self.a["offset"])
            sink = Sink(self.a)
            end = time.monotonic() + PATIENCE_S
            while not sink.full() and time.monotonic() < end:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    for r in records:
                        sink.take(r.offset, r.timestamp, r.value)
            return sink.result()
        finally:
            await consumer.stop()

    async def _offsets(self):
        consumer, where = await self.consumer()
        try:
            at = (await consumer.offsets_for_times({where: self.a["timestamp"]}))[where]
            return {
                "earliest": (await consumer.beginning_offsets([where]))[where],
                "latest": (await consumer.end_offsets([where]))[where],
                "at": at.offset if at else -1,
            }
        finally:
            await consumer.stop()


CLIENTS = {"kafka-python": KafkaPython, "confluent-kafka": Confluent, "aiokafka": Aio}
ACTIONS = ("produce", "consume", "offsets", "topics", "pattern", "compact", "reach_end")


def main():
    client, action, arguments = sys.argv[1:]
    if action not in ACTIONS:
        raise SystemExit(f"no action {action}")
    try:
        result = getattr(CLIENTS[client](json.loads(arguments)), action)()
    except Exception as e:
        print(json.dumps({"error": repr(e)}))
        raise
    print(json.dumps(result))


if __name__ == "__main__":
    main()
