package main

import (
	"context"
	"time"

	"github.com/segmentio/kafka-go"
)

// writeNewestFirst sends two records in one batch with kafka-go: one of a.Timestamp, then one of a day before. Its
// Conn writes the time of the last one as the batch's greatest.
func writeNewestFirst(a arguments) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := kafka.DialLeader(ctx, "tcp", a.Bootstrap, a.Topic, int(a.Partition))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	newest := time.UnixMilli(a.Timestamp)
	_, err = conn.WriteMessages(
		kafka.Message{Value: []byte("new"), Time: newest},
		kafka.Message{Value: []byte("old"), Time: newest.Add(-24 * time.Hour)},
	)
	if err != nil {
		return nil, err
	}
	return map[string]any{"produced": 2}, nil
}
