//! Records of `__consumer_offsets`: Kafka's own keys and values, as bytes and as types.
