package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const readMax = 60 * time.Second

// read is a member that is alone in its group: it prints the values of so many records, a line
// each, commits and leaves.
//
// Usage: rolling read BOOTSTRAP TOPIC GROUP COUNT
func read(arguments []string) {
	count, err := strconv.Atoi(arguments[3])
	fail(err)
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(arguments[0], ",")...), kgo.ConsumeTopics(arguments[1]),
		kgo.ConsumerGroup(arguments[2]), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	fail(err)
	ctx, cancel := context.WithTimeout(context.Background(), readMax)
	defer cancel()
	for n := 0; n < count; {
		fetches := client.PollRecords(ctx, count-n)
		fail(ctx.Err())
		fetches.EachError(func(_ string, _ int32, err error) { fail(err) })
		fetches.EachRecord(func(record *kgo.Record) {
			fmt.Println(string(record.Value))
			n++
		})
	}
	fail(client.CommitUncommittedOffsets(ctx))
	client.Close()
}
