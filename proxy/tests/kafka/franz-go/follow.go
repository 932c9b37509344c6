package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const followMax = 120 * time.Second

// followed is what a follower read, a line for each record, and its errors.
type followed struct {
	Lines  []string         `json:"lines"`
	Errors map[string]int64 `json:"errors"`
}

// follow is a member of a group that reads on and on; there is no reset of its position. A line on
// standard input says how many records there are in all: it ends once it has read and committed
// them.
//
// Usage: rolling follow BOOTSTRAP TOPIC GROUP
func follow(arguments []string) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(arguments[0], ",")...), kgo.ConsumeTopics(arguments[1]),
		kgo.ConsumerGroup(arguments[2]), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
	)
	fail(err)
	wanted := make(chan int, 1)
	go func() {
		lines := bufio.NewScanner(os.Stdin)
		lines.Scan()
		count, err := strconv.Atoi(lines.Text())
		fail(err)
		wanted <- count
	}()
	told := followed{Lines: []string{}, Errors: map[string]int64{}}
	count, until := -1, time.Time{}
	for count < 0 || len(told.Lines) < count && time.Now().Before(until) {
		select {
		case count = <-wanted:
			until = time.Now().Add(followMax)
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		fetches := client.PollFetches(ctx)
		fetches.EachError(func(_ string, _ int32, err error) {
			if ctx.Err() == nil && !isLostSession(err) {
				told.Errors[err.Error()]++
			}
		})
		cancel()
		fetches.EachRecord(func(record *kgo.Record) {
			line := fmt.Sprintf("%d %d %s %s", record.Partition, record.Offset, record.Key, record.Value)
			told.Lines = append(told.Lines, line)
		})
	}
	fail(client.CommitUncommittedOffsets(context.Background()))
	client.Close()
	out, err := json.Marshal(told)
	fail(err)
	fmt.Println(string(out))
}
