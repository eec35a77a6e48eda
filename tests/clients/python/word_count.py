"""A word count on Quix Streams for the end-to-end tests; runs until SIGTERM.

usage: word_count.py BOOTSTRAP STATE_DIR

Lines come from the topic `lines`. Each word goes through a topic that Quix Streams
makes, to the process that counts it. The count after each word goes to the topic
`counts`, with the word as its key. Counts are kept in STATE_DIR and in a changelog
topic, from which Quix Streams rebuilds STATE_DIR when it is gone.
"""

import sys

from quixstreams import Application


def count(word, state):
    seen = state.get("seen", 0) + 1
    state.set("seen", seen)
    return str(seen)


def main():
    bootstrap, state_dir = sys.argv[1:]
    app = Application(
        broker_address=bootstrap,
        consumer_group="word-count",
        auto_offset_reset="earliest",
        state_dir=state_dir,
        commit_interval=0.5,
        # A member that was killed is missed soon.
        consumer_extra_config={"session.timeout.ms": 3000, "heartbeat.interval.ms": 500},
    )
    lines = app.topic("lines", key_deserializer="bytes", value_deserializer="str")
    counts = app.topic("counts", key_serializer="str", value_serializer="str")
    words = app.dataframe(lines).apply(str.split, expand=True)
    words = words.group_by(
        lambda word: word,
        name="word",
        key_serializer="str",
        key_deserializer="str",
        value_serializer="str",
        value_deserializer="str",
    )
    words.apply(count, stateful=True).to_topic(counts)
    app.run()


if __name__ == "__main__":
    main()
