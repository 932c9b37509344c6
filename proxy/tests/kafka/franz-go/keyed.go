package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	burst      = 10
	burstPause = 40 * time.Millisecond
	// logVariable names a file for everything that the client says.
	logVariable = "FRANZ_GO_LOG"
)

// keyedTold is what a keyed load says in the end: all that was sent and did not fail was
// acknowledged.
type keyedTold struct {
	Sent    int64            `json:"sent"`
	Failed  []int64          `json:"failed"`
	Errors  map[string]int64 `json:"errors"`
	Retries int64            `json:"retries"`
}

// keyed is a producer with default settings, idempotent therefore, that writes keyed records of
// several regions until standard input says "stop".
//
// Usage: rolling keyed BOOTSTRAP TOPIC NAME KEYS REGION,REGION...
func keyed(arguments []string) {
	topic, name, regions := arguments[1], arguments[2], strings.Split(arguments[4], ",")
	keys, err := strconv.ParseInt(arguments[3], 10, 64)
	fail(err)
	watched := &watch{}
	options := []kgo.Opt{
		kgo.SeedBrokers(strings.Split(arguments[0], ",")...), kgo.WithHooks(watched),
	}
	if path := os.Getenv(logVariable); path != "" {
		log, err := os.Create(path)
		fail(err)
		now := func() string { return time.Now().UTC().Format("15:04:05.000 ") }
		options = append(options, kgo.WithLogger(kgo.BasicLogger(log, kgo.LogLevelDebug, now)))
	}
	producer, err := kgo.NewClient(options...)
	fail(err)
	var acked atomic.Int64
	var lock sync.Mutex
	told := keyedTold{Failed: []int64{}, Errors: map[string]int64{}}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for n := int64(0); ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			number := n
			told.Sent = n + 1
			producer.Produce(context.Background(), keyedRecord(topic, name, n, keys, regions),
				func(_ *kgo.Record, err error) {
					if err == nil {
						acked.Add(1)
						return
					}
					lock.Lock()
					defer lock.Unlock()
					told.Failed = append(told.Failed, number)
					told.Errors[err.Error()]++
				})
			if n%burst == 0 {
				time.Sleep(burstPause)
			}
		}
	}()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() && lines.Text() != "stop" {
		fmt.Println(acked.Load())
	}
	close(stop)
	<-done
	flush, cancel := context.WithTimeout(context.Background(), flushMax)
	defer cancel()
	if err := producer.Flush(flush); err != nil {
		fail(fmt.Errorf("%d records left: %w", producer.BufferedProduceRecords(), err))
	}
	lock.Lock()
	defer lock.Unlock()
	told.Retries = watched.failed.Load()
	out, err := json.Marshal(told)
	fail(err)
	fmt.Println(string(out))
}

// keyedRecord: keys take turns; the region changes once each key had its turn.
func keyedRecord(topic, name string, n, keys int64, regions []string) *kgo.Record {
	region := regions[n/keys%int64(len(regions))]
	return &kgo.Record{
		Topic:   topic,
		Key:     []byte(fmt.Sprintf("%s-key-%d", name, n%keys)),
		Value:   []byte(fmt.Sprintf("%s %d", name, n)),
		Headers: []kgo.RecordHeader{{Key: "region", Value: []byte(region)}},
	}
}
