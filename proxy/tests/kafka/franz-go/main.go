// franz-go at work: a load, or one round of a client that logs in.
//
//	rolling BOOTSTRAP TOPIC PARTITIONS   an idempotent producer and a group's reader
//	rolling round JSON                   see round.go
//	rolling read ...                     see read.go
//	rolling keyed ...                    see keyed.go
//	rolling follow ...                   see follow.go
//
// The load goes on until standard input ends. The line "acked" there is answered with their
// number, the line "stop" ends the load: what is in flight is waited for, the reader reads what is
// left, and one line of JSON tells everything.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	pause       = 2 * time.Millisecond
	flushMax    = 120 * time.Second
	leftoverMax = 60 * time.Second
)

// told is what the load says in the end.
type told struct {
	Sent        int64            `json:"sent"`
	Acked       int64            `json:"acked"`
	Errors      map[string]int64 `json:"errors"`
	Read        int              `json:"read"`
	ReadErrors  map[string]int64 `json:"read_errors"`
	Lost        int64            `json:"sessions_lost"`
	Disconnects int64            `json:"disconnects"`
	Failed      int64            `json:"requests_failed"`
}

// watch counts what franz-go tells of its connections.
type watch struct {
	disconnects atomic.Int64
	failed      atomic.Int64
}

func (w *watch) OnBrokerDisconnect(kgo.BrokerMetadata, net.Conn) { w.disconnects.Add(1) }

func (w *watch) OnBrokerE2E(_ kgo.BrokerMetadata, _ int16, e2e kgo.BrokerE2E) {
	if e2e.Err() != nil {
		w.failed.Add(1)
	}
}

// counts are numbers of errors by their words.
type counts struct {
	sync.Mutex
	of map[string]int64
}

func (c *counts) add(err error) {
	c.Lock()
	defer c.Unlock()
	c.of[err.Error()]++
}

func main() {
	switch os.Args[1] {
	case "read":
		read(os.Args[2:])
	case "follow":
		follow(os.Args[2:])
	case "keyed":
		keyed(os.Args[2:])
	case "round":
		round(os.Args[2])
	default:
		load()
	}
}

func load() {
	bootstrap, topic := strings.Split(os.Args[1], ","), os.Args[2]
	partitions, err := strconv.Atoi(os.Args[3])
	fail(err)
	watched := &watch{}
	producer, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap...), kgo.WithHooks(watched),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(2*time.Millisecond),
	)
	fail(err)
	reader, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap...), kgo.WithHooks(watched), kgo.ConsumeTopics(topic),
		kgo.ConsumerGroup("readers-of-"+topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	fail(err)
	var acked, sent atomic.Int64
	failed := &counts{of: map[string]int64{}}
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(pause):
			}
			key := []byte(fmt.Sprintf("key-%d", n))
			record := &kgo.Record{
				Topic: topic, Partition: int32(n % partitions), Key: key, Value: []byte("some value"),
			}
			sent.Add(1)
			producer.Produce(context.Background(), record, func(_ *kgo.Record, err error) {
				if err != nil {
					failed.add(err)
					return
				}
				acked.Add(1)
			})
		}
	}()
	read := newReading(reader)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() && lines.Text() != "stop" {
		fmt.Println(acked.Load())
	}
	close(stop)
	<-done
	flush, cancel := context.WithTimeout(context.Background(), flushMax)
	defer cancel()
	if err := producer.Flush(flush); err != nil {
		failed.add(err)
	}
	out, err := json.Marshal(told{
		Read: read.finish(int(acked.Load())), ReadErrors: read.errors.of, Lost: read.lost.Load(),
		Sent: sent.Load(), Acked: acked.Load(), Errors: failed.of,
		Disconnects: watched.disconnects.Load(), Failed: watched.failed.Load(),
	})
	fail(err)
	fmt.Println(string(out))
}

// reading is the group's reader and what it has read.
type reading struct {
	client *kgo.Client
	errors *counts
	keys   sync.Map
	count  atomic.Int64
	lost   atomic.Int64
	ended  chan struct{}
	cancel context.CancelFunc
}

func newReading(client *kgo.Client) *reading {
	ctx, cancel := context.WithCancel(context.Background())
	r := &reading{
		client: client, errors: &counts{of: map[string]int64{}},
		ended: make(chan struct{}), cancel: cancel,
	}
	go func() {
		defer close(r.ended)
		for ctx.Err() == nil {
			fetches := client.PollFetches(ctx)
			fetches.EachError(func(_ string, _ int32, err error) {
				switch {
				case ctx.Err() != nil:
				case isLostSession(err):
					r.lost.Add(1)
				default:
					r.errors.add(err)
				}
			})
			fetches.EachRecord(func(record *kgo.Record) {
				if _, again := r.keys.LoadOrStore(string(record.Key), true); !again {
					r.count.Add(1)
				}
			})
		}
	}()
	return r
}

// isLostSession is true when the coordinator went away: the client says so and joins again by
// itself. A connection whose very first bytes are its end is no such thing: no broker does that.
func isLostSession(err error) bool {
	var session *kgo.ErrGroupSession
	stranger := strings.Contains(err.Error(), "during api versions negotiation")
	return errors.As(err, &session) && !stranger
}

// finish waits until so many records were read, and gives how many there were.
func (r *reading) finish(wanted int) int {
	for end := time.Now().Add(leftoverMax); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if int(r.count.Load()) >= wanted {
			break
		}
	}
	r.cancel()
	<-r.ended
	r.client.Close()
	return int(r.count.Load())
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
