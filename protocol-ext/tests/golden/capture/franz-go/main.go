// Drives franz-go: as itself, and held back to the request versions of older Kafkas, so that every
// version of the common requests is seen on the wire.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
)

// Kafka releases whose request versions differ from their predecessors' in something captured.
var releases = []string{
	"0.10.2", "0.11.0", "1.0", "1.1", "2.0", "2.1", "2.2", "2.3", "2.4", "2.5", "2.6", "2.7", "2.8",
	"3.0", "3.1", "3.2", "3.3", "3.4", "3.5", "3.6", "3.7", "3.8", "3.9", "4.0", "4.1", "4.2",
}

// Before record batches; brokers of 4.x say Produce 0 and answer no less than 3.
const onlyOldBrokers = "0.10.2"

// From this one on answers name the current leader (KIP-951).
const firstWithEndpoints = "3.7"

const stepTimeout = 30 * time.Second

var lines = bufio.NewReader(os.Stdin)

// driver is one run of the steps at one level of request versions; release "" is the newest.
type driver struct {
	bootstrap string
	prefix    string
	brokers   int
	sasl      string
	user      string
	password  string
	release   string
}

func main() {
	brokers, err := strconv.Atoi(os.Args[3])
	if err != nil {
		fmt.Println("error brokers", err)
		os.Exit(2)
	}
	all := append([]string{""}, releases...)
	moving := brokers > 1
	for _, release := range all {
		name := release
		if name == "" {
			name = "new"
		}
		if release == onlyOldBrokers && !strings.HasPrefix(os.Args[7], "3.") {
			continue
		}
		d := driver{
			bootstrap: os.Args[1], prefix: os.Args[2] + "-" + name, brokers: brokers,
			sasl: os.Args[4], user: os.Args[5], password: os.Args[6], release: release,
		}
		if moving && release != "" && !atLeast(release, firstWithEndpoints) {
			continue
		}
		d.run()
	}
}

func atLeast(release, floor string) bool {
	for _, each := range releases {
		if each == floor {
			return true
		}
		if each == release {
			return false
		}
	}
	return false
}

func (d *driver) run() {
	fmt.Println("release", d.release)
	d.step("topics", d.topics)
	for _, codec := range codecs {
		d.step("produce "+codec.name, func(ctx context.Context) error {
			return d.produce(ctx, codec)
		})
	}
	d.step("consume", d.consume)
	d.step("group", func(ctx context.Context) error { return d.group(ctx, false) })
	d.step("transactions", d.transactions)
	d.step("read committed", d.readCommitted)
	if d.brokers > 1 {
		d.step("moved producer", d.movedProducer)
		d.step("moved consumer", d.movedConsumer)
	}
	if d.release == "" {
		d.step("consumer group", func(ctx context.Context) error { return d.group(ctx, true) })
		d.step("share", d.share)
		d.step("sasl", d.listOverSASL)
	}
	d.admin()
}

// step runs one step; an error answer is a frame too, so a failure is printed and passed over.
func (d *driver) step(name string, work func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), stepTimeout)
	defer cancel()
	if err := work(ctx); err != nil {
		fmt.Println("error", name, err)
		return
	}
	fmt.Println("done", name)
}

// move asks the capture to move the topic's leaders, and waits until it has.
func move(topic string) error {
	fmt.Println("MOVE", topic)
	_, err := lines.ReadString('\n')
	return err
}

func (d *driver) client(more ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(d.options(more...)...)
}

func (d *driver) options(more ...kgo.Opt) []kgo.Opt {
	options := []kgo.Opt{
		kgo.SeedBrokers(split(d.bootstrap)...),
		kgo.RetryTimeout(8 * time.Second),
		kgo.FetchMaxWait(300 * time.Millisecond),
	}
	if d.release != "" {
		options = append(options, kgo.MaxVersions(kversion.FromString("v"+d.release)))
	}
	return append(options, more...)
}
