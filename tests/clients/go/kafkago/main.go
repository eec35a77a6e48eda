// A command around kafka-go for the end-to-end tests: one action a run, its arguments
// one JSON object, its result one JSON line on standard output.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
)

const patience = 30 * time.Second

type arguments struct {
	Bootstrap   string `json:"bootstrap"`
	Topic       string `json:"topic"`
	Partition   int    `json:"partition"`
	File        string `json:"file"`
	Compression string `json:"compression"`
	Timestamp   int64  `json:"timestamp"`
	// Milliseconds from one record's timestamp to the next one's; 1 if it is not given.
	Step   *int64 `json:"step"`
	Offset int64  `json:"offset"`
	Count  int    `json:"count"`
}

// What was written in one call becomes one batch. kafka-go takes the timestamp of the
// last record for the greatest one in the batch's header, which is wrong when time
// runs backwards (a negative step).
func produce(a arguments) (map[string]any, error) {
	in, err := os.Open(a.File)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	step := int64(1)
	if a.Step != nil {
		step = *a.Step
	}
	var batch []kafka.Message
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 1<<20), 1<<24)
	for i := int64(0); lines.Scan(); i++ {
		batch = append(batch, kafka.Message{
			Value: []byte(lines.Text()),
			Time:  time.UnixMilli(a.Timestamp + step*i),
		})
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	var codec kafka.CompressionCodec
	switch a.Compression {
	case "gzip":
		codec = kafka.Gzip.Codec()
	case "snappy":
		codec = kafka.Snappy.Codec()
	case "lz4":
		codec = kafka.Lz4.Codec()
	case "zstd":
		codec = kafka.Zstd.Codec()
	}
	conn, err := leader(a)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_, _, first, _, err := conn.WriteCompressedMessagesAt(codec, batch...)
	if err != nil {
		return nil, err
	}
	return map[string]any{"produced": len(batch), "first_offset": first}, nil
}

// Sends two records in one batch: one of a.Timestamp, then one of a day before. kafka-go
// writes the time of the last one as the batch's greatest.
func writeNewestFirst(a arguments) (map[string]any, error) {
	conn, err := leader(a)
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

func consume(a arguments) (map[string]any, error) {
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{a.Bootstrap}, Topic: a.Topic, Partition: a.Partition, MaxWait: 500 * time.Millisecond,
	})
	defer reader.Close()
	if err := reader.SetOffset(a.Offset); err != nil {
		return nil, err
	}
	out, err := os.Create(a.File)
	if err != nil {
		return nil, err
	}
	writer := bufio.NewWriter(out)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var first, last kafka.Message
	for n := 0; n < a.Count; n++ {
		m, err := reader.ReadMessage(ctx)
		if err != nil {
			return nil, fmt.Errorf("after %d of %d records: %w", n, a.Count, err)
		}
		if n == 0 {
			first = m
		}
		last = m
		writer.Write(m.Value)
		writer.WriteByte('\n')
	}
	if err := writer.Flush(); err != nil {
		return nil, err
	}
	return map[string]any{
		"consumed": a.Count, "first_offset": first.Offset, "first_timestamp": first.Time.UnixMilli(),
		"last_offset": last.Offset,
	}, out.Close()
}

func offsets(a arguments) (map[string]any, error) {
	conn, err := leader(a)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	earliest, latest, err := conn.ReadOffsets()
	if err != nil {
		return nil, err
	}
	at, err := conn.ReadOffset(time.UnixMilli(a.Timestamp))
	if err != nil {
		return nil, err
	}
	return map[string]any{"earliest": earliest, "latest": latest, "at": at}, nil
}

// All groups that the broker knows, in the order of their names.
func groups(a arguments) (map[string]any, error) {
	client := kafka.Client{Addr: kafka.TCP(a.Bootstrap), Timeout: patience}
	listed, err := client.ListGroups(context.Background(), &kafka.ListGroupsRequest{})
	if err != nil {
		return nil, err
	}
	if listed.Error != nil {
		return nil, listed.Error
	}
	names := []string{}
	for _, group := range listed.Groups {
		names = append(names, group.GroupID)
	}
	slices.Sort(names)
	return map[string]any{"groups": names}, nil
}

func leader(a arguments) (*kafka.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := kafka.DialLeader(ctx, "tcp", a.Bootstrap, a.Topic, a.Partition)
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(patience))
}

func run() (map[string]any, error) {
	if len(os.Args) != 3 {
		return nil, errors.New("usage: kafka-go-client produce|write-newest-first|consume|offsets|groups JSON")
	}
	var a arguments
	if err := json.Unmarshal([]byte(os.Args[2]), &a); err != nil {
		return nil, err
	}
	switch os.Args[1] {
	case "produce":
		return produce(a)
	case "write-newest-first":
		return writeNewestFirst(a)
	case "consume":
		return consume(a)
	case "offsets":
		return offsets(a)
	case "groups":
		return groups(a)
	}
	return nil, fmt.Errorf("no action %q", os.Args[1])
}

func main() {
	result, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		result = map[string]any{"error": err.Error()}
	}
	line, _ := json.Marshal(result)
	fmt.Println(string(line))
	if err != nil {
		os.Exit(1)
	}
}
