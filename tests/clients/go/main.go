// A command around sarama, and kafka-go, for the end-to-end tests: one action a run, its
// arguments one JSON object, its result one JSON line on standard output. The action
// `member` (member.go) runs until SIGTERM.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/IBM/sarama"
)

type arguments struct {
	Bootstrap   string `json:"bootstrap"`
	Topic       string `json:"topic"`
	Partition   int32  `json:"partition"`
	File        string `json:"file"`
	Compression string `json:"compression"`
	Timestamp   int64  `json:"timestamp"`
	Offset      int64  `json:"offset"`
	Count       int    `json:"count"`
}

func configuration(a arguments) *sarama.Config {
	c := sarama.NewConfig()
	c.ClientID = "drumlin-tests-sarama"
	c.Version = sarama.V2_8_0_0
	c.Producer.Return.Successes = true
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Partitioner = sarama.NewManualPartitioner
	c.Producer.Idempotent = true
	c.Net.MaxOpenRequests = 1
	switch a.Compression {
	case "gzip":
		c.Producer.Compression = sarama.CompressionGZIP
	case "snappy":
		c.Producer.Compression = sarama.CompressionSnappy
	case "lz4":
		c.Producer.Compression = sarama.CompressionLZ4
	case "zstd":
		c.Producer.Compression = sarama.CompressionZSTD
	}
	return c
}

func produce(a arguments) (map[string]any, error) {
	in, err := os.Open(a.File)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	producer, err := sarama.NewSyncProducer([]string{a.Bootstrap}, configuration(a))
	if err != nil {
		return nil, err
	}
	defer producer.Close()
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 1<<20), 1<<24)
	var batch []*sarama.ProducerMessage
	for i := int64(0); lines.Scan(); i++ {
		batch = append(batch, &sarama.ProducerMessage{
			Topic:     a.Topic,
			Partition: a.Partition,
			Value:     sarama.StringEncoder(lines.Text()),
			Timestamp: time.UnixMilli(a.Timestamp + i),
		})
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if err := producer.SendMessages(batch); err != nil {
		return nil, err
	}
	first := batch[0].Offset
	for i, m := range batch {
		if m.Offset != first+int64(i) {
			return nil, fmt.Errorf("record %d got offset %d after first offset %d", i, m.Offset, first)
		}
	}
	return map[string]any{"produced": len(batch), "first_offset": first}, nil
}

func consume(a arguments) (map[string]any, error) {
	consumer, err := sarama.NewConsumer([]string{a.Bootstrap}, configuration(a))
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	partition, err := consumer.ConsumePartition(a.Topic, a.Partition, a.Offset)
	if err != nil {
		return nil, err
	}
	defer partition.Close()
	out, err := os.Create(a.File)
	if err != nil {
		return nil, err
	}
	writer := bufio.NewWriter(out)
	var firstOffset, firstTimestamp, last int64
	for n := 0; n < a.Count; n++ {
		select {
		case m := <-partition.Messages():
			if n == 0 {
				firstOffset, firstTimestamp = m.Offset, m.Timestamp.UnixMilli()
			}
			last = m.Offset
			writer.Write(m.Value)
			writer.WriteByte('\n')
		case e := <-partition.Errors():
			return nil, e
		case <-time.After(30 * time.Second):
			return nil, fmt.Errorf("no record for 30 s after %d of %d", n, a.Count)
		}
	}
	if err := writer.Flush(); err != nil {
		return nil, err
	}
	return map[string]any{
		"consumed": a.Count, "first_offset": firstOffset, "first_timestamp": firstTimestamp, "last_offset": last,
	}, out.Close()
}

func offsets(a arguments) (map[string]any, error) {
	client, err := sarama.NewClient([]string{a.Bootstrap}, configuration(a))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	result := map[string]any{}
	for name, at := range map[string]int64{
		"earliest": sarama.OffsetOldest, "latest": sarama.OffsetNewest, "at": a.Timestamp,
	} {
		offset, err := client.GetOffset(a.Topic, a.Partition, at)
		if err != nil {
			return nil, err
		}
		result[name] = offset
	}
	return result, nil
}

func run() (map[string]any, error) {
	if len(os.Args) != 3 {
		return nil, fmt.Errorf("usage: %s produce|consume|offsets|member JSON", os.Args[0])
	}
	var a arguments
	if err := json.Unmarshal([]byte(os.Args[2]), &a); err != nil {
		return nil, err
	}
	switch os.Args[1] {
	case "produce":
		return produce(a)
	case "consume":
		return consume(a)
	case "offsets":
		return offsets(a)
	}
	return nil, fmt.Errorf("no action %q", os.Args[1])
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "member" {
		if err := member(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
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
