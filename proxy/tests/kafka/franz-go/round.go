package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// emptyFor is how long a topic in which nothing was written is looked at.
const emptyFor = 1500 * time.Millisecond

// wanted is one round: who logs in where, and how much is written and read back.
type wanted struct {
	Bootstrap string            `json:"bootstrap"`
	Topic     string            `json:"topic"`
	Partition int32             `json:"partition"`
	Count     int               `json:"count"`
	WaitMs    int               `json:"wait_ms"`
	CA        string            `json:"ca"`
	Cert      string            `json:"cert"`
	Key       string            `json:"key"`
	Mechanism string            `json:"mechanism"`
	User      string            `json:"user"`
	Password  string            `json:"password"`
	Hosts     map[string]string `json:"hosts"`
}

// refusal ends a round as soon as a login or a handshake fails: the client would try again.
type refusal struct {
	cancel context.CancelCauseFunc
}

func (r refusal) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err != nil && name(err) != "other" {
		r.cancel(err)
	}
}

// round writes records to one partition and reads them back; what was refused is told by its name.
func round(text string) {
	var w wanted
	fail(json.Unmarshal([]byte(text), &w))
	out := map[string]any{}
	written, err := w.write()
	out["written"] = written
	if err != nil {
		out["error"] = name(err)
	}
	if records, digest, err := w.read(written); err != nil {
		out["read"] = name(err)
	} else {
		out["read"] = map[string]any{"records": records, "sha256": digest}
	}
	line, err := json.Marshal(out)
	fail(err)
	fmt.Println(string(line))
}

func (w wanted) write() (int, error) {
	ctx, client, end := w.client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer end()
	for n := 0; n < w.Count; n++ {
		record := &kgo.Record{
			Topic: w.Topic, Partition: w.Partition,
			Key: fmt.Appendf(nil, "key-%d", n), Value: fmt.Appendf(nil, "value %d", n),
			Timestamp: time.UnixMilli(1_750_000_000_000 + int64(n)),
		}
		if err := client.ProduceSync(ctx, record).FirstErr(); err != nil {
			return n, cause(ctx, err)
		}
	}
	return w.Count, nil
}

func (w wanted) read(written int) (int, string, error) {
	from := map[string]map[int32]kgo.Offset{w.Topic: {w.Partition: kgo.NewOffset().AtStart()}}
	ctx, client, end := w.client(kgo.ConsumePartitions(from))
	defer end()
	if written == 0 {
		shorter, cancel := context.WithTimeout(ctx, emptyFor)
		defer cancel()
		ctx = shorter
	}
	digest, seen := sha256.New(), 0
	for seen < w.Count {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			if written == 0 && context.Cause(ctx) == context.DeadlineExceeded {
				break
			}
			return seen, "", context.Cause(ctx)
		}
		if failed := fetches.Errors(); len(failed) > 0 {
			return seen, "", failed[0].Err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if seen < w.Count {
				fmt.Fprintf(digest, "%d %d %s %s", r.Offset, r.Timestamp.UnixMilli(), r.Key, r.Value)
				seen++
			}
		})
	}
	return seen, hex.EncodeToString(digest.Sum(nil)), nil
}

// client is one that proves who it is; its context ends with the round's time or a refusal.
func (w wanted) client(more ...kgo.Opt) (context.Context, *kgo.Client, func()) {
	timed, stop := context.WithTimeout(
		context.Background(), time.Duration(w.WaitMs)*time.Millisecond,
	)
	ctx, cancel := context.WithCancelCause(timed)
	all := append(more,
		kgo.SeedBrokers(strings.Split(w.Bootstrap, ",")...), kgo.Dialer(w.dial()),
		kgo.WithHooks(refusal{cancel}), kgo.FetchMaxWait(300*time.Millisecond),
	)
	if w.Mechanism != "" {
		all = append(all, kgo.SASL(w.mechanism()))
	}
	client, err := kgo.NewClient(all...)
	fail(err)
	return ctx, client, func() {
		client.Close()
		cancel(nil)
		stop()
	}
}

// dial opens TLS connections, to hosts that the round resolves by itself.
func (w wanted) dial() func(context.Context, string, string) (net.Conn, error) {
	pem, err := os.ReadFile(w.CA)
	fail(err)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		fail(errors.New("no authority in " + w.CA))
	}
	var own []tls.Certificate
	if w.Cert != "" {
		pair, err := tls.LoadX509KeyPair(w.Cert, w.Key)
		fail(err)
		own = append(own, pair)
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		// Certificates are checked by the name, wherever that leads.
		config := &tls.Config{RootCAs: roots, Certificates: own, ServerName: host}
		if at, ok := w.Hosts[host]; ok {
			address = net.JoinHostPort(at, port)
		}
		return (&tls.Dialer{Config: config}).DialContext(ctx, network, address)
	}
}

func (w wanted) mechanism() sasl.Mechanism {
	switch w.Mechanism {
	case "PLAIN":
		return plain.Auth{User: w.User, Pass: w.Password}.AsMechanism()
	case "SCRAM-SHA-256":
		return scram.Auth{User: w.User, Pass: w.Password}.AsSha256Mechanism()
	case "SCRAM-SHA-512":
		return scram.Auth{User: w.User, Pass: w.Password}.AsSha512Mechanism()
	default:
		return oauth.Auth{Token: unsecured(w.User)}.AsMechanism()
	}
}

// unsecured is a token that nobody signed, which a broker's unsecured validator takes.
func unsecured(subject string) string {
	now := time.Now().Unix()
	claims, err := json.Marshal(map[string]any{"sub": subject, "iat": now, "exp": now + 3600})
	fail(err)
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"none"}`)) + "." + part(claims) + "."
}

// cause is what ended a context, or the error itself.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// name is what a broker calls an error; what is wrong with a certificate; or neither.
func name(err error) string {
	var broker *kerr.Error
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var host x509.HostnameError
	switch {
	case errors.As(err, &broker):
		return broker.Message
	case errors.As(err, &unknown), errors.As(err, &invalid), errors.As(err, &host),
		strings.Contains(err.Error(), "tls: "):
		return "certificate"
	default:
		return "other"
	}
}
