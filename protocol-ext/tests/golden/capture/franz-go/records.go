package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
)

type codec struct {
	name   string
	option kgo.CompressionCodec
}

var codecs = []codec{
	{"none", kgo.NoCompression()},
	{"gzip", kgo.GzipCompression()},
	{"snappy", kgo.SnappyCompression()},
	{"lz4", kgo.Lz4Compression()},
	{"zstd", kgo.ZstdCompression()},
}

func split(list string) []string { return strings.Split(list, ",") }

func (d *driver) topic(name string) string { return d.prefix + "-" + name }

// topics are made with the newest requests, whatever the release.
func (d *driver) topics(ctx context.Context) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(split(d.bootstrap)...))
	if err != nil {
		return err
	}
	defer cl.Close()
	admin := kadm.NewClient(cl)
	copies := int16(min(d.brokers, 2))
	names := []string{d.topic("codec"), d.topic("txn"), d.topic("extra")}
	if _, err := admin.CreateTopics(ctx, 2, copies, nil, names...); err != nil {
		return err
	}
	_, err = admin.CreateTopics(ctx, 2, 1, nil, d.topic("moved"))
	return err
}

func record(topic string, number int) *kgo.Record {
	r := &kgo.Record{Topic: topic, Value: []byte(strings.Repeat(fmt.Sprint("value ", number), 4))}
	if number%3 != 0 {
		r.Key = fmt.Append(nil, "key-", number)
	}
	if number%5 == 4 {
		r.Value = nil
	}
	if number%2 == 1 {
		r.Headers = []kgo.RecordHeader{
			{Key: "twice", Value: []byte("a")}, {Key: "twice", Value: []byte("b")}, {Key: "none"},
		}
	}
	return r
}

func send(ctx context.Context, cl *kgo.Client, topic string, count int) error {
	var batch []*kgo.Record
	for i := range count {
		batch = append(batch, record(topic, i))
	}
	return cl.ProduceSync(ctx, batch...).FirstErr()
}

func (d *driver) produce(ctx context.Context, codec codec) error {
	compressed := kgo.ProducerBatchCompression(codec.option, kgo.NoCompression())
	kinds := [][]kgo.Opt{{}, {kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.LeaderAck())}}
	if codec.name == "none" {
		kinds = append(kinds, []kgo.Opt{kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.NoAck())})
	}
	for _, kind := range kinds {
		options := append(kind, compressed, kgo.ProducerLinger(20*time.Millisecond))
		cl, err := d.client(options...)
		if err != nil {
			return err
		}
		defer cl.Close()
		for _, count := range []int{1, 12} {
			if err := send(ctx, cl, d.topic("codec"), count); err != nil {
				return err
			}
		}
	}
	return nil
}

// drain polls until `want` records were seen or no more come for a while.
func drain(ctx context.Context, cl *kgo.Client, want int) int {
	have := 0
	for idle := 0; have < want && idle < 3; idle++ {
		short, cancel := context.WithTimeout(ctx, 400*time.Millisecond)
		fetches := cl.PollFetches(short)
		cancel()
		if fetches.NumRecords() > 0 {
			idle = 0
		}
		have += fetches.NumRecords()
	}
	return have
}

func (d *driver) consume(ctx context.Context) error {
	cl, err := d.client(
		kgo.ConsumeTopics(d.topic("codec")),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxPartitionBytes(2000),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	drain(ctx, cl, 60)
	return nil
}

func (d *driver) group(ctx context.Context, serverSide bool) error {
	name := d.topic("group")
	options := []kgo.Opt{
		kgo.ConsumeTopics(d.topic("codec")),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.HeartbeatInterval(500 * time.Millisecond),
		kgo.DisableAutoCommit(),
	}
	if serverSide {
		name = d.topic("consumer")
		options = append(options, kgo.ServerSideBalancer(), kgo.Balancers(kgo.RangeBalancer()))
	}
	options = append(options, kgo.ConsumerGroup(name))
	first, err := d.client(options...)
	if err != nil {
		return err
	}
	defer first.Close()
	drain(ctx, first, 40)
	if err := first.CommitUncommittedOffsets(ctx); err != nil {
		return err
	}
	second, err := d.client(append(options, kgo.InstanceID("member-2"))...)
	if err != nil {
		return err
	}
	defer second.Close()
	for range 2 {
		drain(ctx, first, 1)
		drain(ctx, second, 1)
	}
	return first.CommitUncommittedOffsets(ctx)
}

func (d *driver) transactions(ctx context.Context) error {
	session, err := kgo.NewGroupTransactSession(d.options(
		kgo.TransactionalID(d.topic("id")),
		kgo.ConsumerGroup(d.topic("txn-group")),
		kgo.ConsumeTopics(d.topic("codec")),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.ProducerBatchCompression(kgo.Lz4Compression()),
	)...)
	if err != nil {
		return err
	}
	defer session.Close()
	for _, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit} {
		short, cancel := context.WithTimeout(ctx, time.Second)
		session.PollRecords(short, 5)
		cancel()
		if err := session.Begin(); err != nil {
			return err
		}
		for i := range 4 {
			session.Produce(ctx, record(d.topic("txn"), i), nil)
		}
		if _, err := session.End(ctx, end); err != nil {
			return err
		}
	}
	return nil
}

func (d *driver) readCommitted(ctx context.Context) error {
	for _, level := range []kgo.IsolationLevel{kgo.ReadCommitted(), kgo.ReadUncommitted()} {
		cl, err := d.client(
			kgo.ConsumeTopics(d.topic("txn")),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
			kgo.FetchIsolationLevel(level),
			kgo.FetchMaxPartitionBytes(1000),
		)
		if err != nil {
			return err
		}
		drain(ctx, cl, 12)
		cl.Close()
	}
	return nil
}

func (d *driver) movedProducer(ctx context.Context) error {
	for _, more := range [][]kgo.Opt{{}, {kgo.DisableIdempotentWrite()}} {
		cl, err := d.client(more...)
		if err != nil {
			return err
		}
		defer cl.Close()
		if err := send(ctx, cl, d.topic("moved"), 8); err != nil {
			return err
		}
		if err := move(d.topic("moved")); err != nil {
			return err
		}
		if err := send(ctx, cl, d.topic("moved"), 8); err != nil {
			return err
		}
	}
	return nil
}

func (d *driver) movedConsumer(ctx context.Context) error {
	cl, err := d.client(
		kgo.ConsumeTopics(d.topic("moved")),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxPartitionBytes(1500),
		kgo.FetchMaxWait(2*time.Second),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	for range 3 {
		drain(ctx, cl, 8)
		if err := move(d.topic("moved")); err != nil {
			return err
		}
		if err := send(ctx, cl, d.topic("moved"), 8); err != nil {
			return err
		}
	}
	drain(ctx, cl, 8)
	return nil
}

// share holds records while their leader moves.
func (d *driver) share(ctx context.Context) error {
	topic := d.topic("codec")
	if d.brokers > 1 {
		topic = d.topic("moved")
	}
	cl, err := d.client(kgo.ConsumeTopics(topic), kgo.ShareGroup(d.topic("share")))
	if err != nil {
		return err
	}
	defer cl.Close()
	drain(ctx, cl, 1)
	for round := range 6 {
		if err := send(ctx, cl, topic, 10); err != nil {
			return err
		}
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		for i, r := range cl.PollFetches(short).Records() {
			r.Ack([]kgo.AckStatus{kgo.AckAccept, kgo.AckRelease, kgo.AckReject}[i%3])
		}
		cancel()
		if d.brokers > 1 && round%2 == 1 {
			if err := move(topic); err != nil {
				return err
			}
		}
		if err := cl.FlushAcks(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *driver) listOverSASL(ctx context.Context) error {
	secret := plain.Auth{User: d.user, Pass: d.password}
	cl, err := d.client(kgo.SeedBrokers(split(d.sasl)...), kgo.SASL(secret.AsMechanism()))
	if err != nil {
		return err
	}
	defer cl.Close()
	_, err = kadm.NewClient(cl).ListTopics(ctx)
	return err
}
