package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/IBM/sarama"
)

// What a member is given; what it tells is described in ../python/member.py.
type memberArguments struct {
	Bootstrap string   `json:"bootstrap"`
	Topics    []string `json:"topics"`
	Group     string   `json:"group"`
	Assignor  string   `json:"assignor"`
	Commit    string   `json:"commit"`
	SessionMs int      `json:"session_ms"`
	Instance  string   `json:"instance"`
	Client    string   `json:"client"`
}

var telling sync.Mutex

func tell(event map[string]any) {
	if _, isRecord := event["p"]; !isRecord {
		event["at"] = time.Now().UnixMilli()
	}
	line, _ := json.Marshal(event)
	telling.Lock()
	defer telling.Unlock()
	os.Stdout.Write(append(line, '\n'))
}

type handler struct {
	commit string
	topic  string
}

func (h handler) Setup(s sarama.ConsumerGroupSession) error {
	mine := slices.Clone(s.Claims()[h.topic])
	slices.Sort(mine)
	if mine == nil {
		mine = []int32{}
	}
	tell(map[string]any{"assigned": mine, "generation": s.GenerationID()})
	return nil
}

func (h handler) Cleanup(s sarama.ConsumerGroupSession) error {
	tell(map[string]any{"assigned": []int32{}, "revoked": true})
	return nil
}

func (h handler) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for m := range claim.Messages() {
		tell(map[string]any{"p": m.Partition, "o": m.Offset, "v": string(m.Value)})
		s.MarkMessage(m, "")
		// Sarama has no answer to tell of: its commits are tried again in the background.
		if h.commit == "sync" {
			s.Commit()
		}
	}
	return nil
}

func member(text string) error {
	var a memberArguments
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		return err
	}
	c := sarama.NewConfig()
	c.ClientID = "sarama"
	if a.Client != "" {
		c.ClientID = a.Client
	}
	c.Version = sarama.V2_8_0_0
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Offsets.AutoCommit.Enable = a.Commit == "auto"
	c.Consumer.Offsets.AutoCommit.Interval = 200 * time.Millisecond
	c.Consumer.Group.Session.Timeout = time.Duration(a.SessionMs) * time.Millisecond
	c.Consumer.Group.Heartbeat.Interval = time.Duration(max(100, a.SessionMs/4)) * time.Millisecond
	c.Consumer.Group.Rebalance.Timeout = 10 * time.Second
	c.Consumer.Group.InstanceId = a.Instance
	c.Metadata.Retry.Max = 100
	c.Consumer.MaxWaitTime = 100 * time.Millisecond
	switch a.Assignor {
	case "", "range":
		c.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategyRange()}
	case "roundrobin":
		c.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategyRoundRobin()}
	case "sticky":
		c.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategySticky()}
	default:
		return fmt.Errorf("no assignor %q", a.Assignor)
	}
	group, err := sarama.NewConsumerGroup([]string{a.Bootstrap}, a.Group, c)
	if err != nil {
		return err
	}
	running, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	for running.Err() == nil {
		err := group.Consume(running, a.Topics, handler{a.Commit, a.Topics[0]})
		if errors.Is(err, sarama.ErrClosedConsumerGroup) {
			break
		}
		if err != nil {
			tell(map[string]any{"trouble": strconv.Quote(err.Error())})
			time.Sleep(100 * time.Millisecond)
		}
	}
	if err := group.Close(); err != nil {
		return err
	}
	tell(map[string]any{"left": true})
	return nil
}
