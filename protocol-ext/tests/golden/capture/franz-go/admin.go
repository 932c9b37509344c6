package main

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

type ask struct {
	name string
	do   func(context.Context) error
}

// admin asks everything kadm can ask; old request versions make some of it impossible.
func (d *driver) admin() {
	cl, err := d.client()
	if err != nil {
		return
	}
	defer cl.Close()
	admin := kadm.NewClient(cl)
	asks := append(d.askTopics(admin), d.askGroups(admin)...)
	asks = append(asks, d.askCluster(admin)...)
	for _, ask := range append(asks, d.askTransactions(admin)...) {
		d.step(ask.name, ask.do)
	}
}

// only drops an answer and keeps its error.
func only[T any](_ T, err error) error { return err }

func (d *driver) askTopics(a *kadm.Client) []ask {
	topic, extra := d.topic("codec"), d.topic("extra")
	var parts kadm.TopicsSet
	parts.Add(topic, 0, 1)
	value := "900000"
	set := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &value}}
	var trim kadm.Offsets
	trim.AddOffset(topic, 0, 2, -1)
	var epochs kadm.OffsetForLeaderEpochRequest
	epochs.Add(topic, 0, 0)
	type c = context.Context
	return []ask{
		{"metadata", func(x c) error { return only(a.Metadata(x, topic, d.topic("no"))) }},
		{"topics", func(x c) error { return only(a.ListTopicsWithInternal(x)) }},
		{"create again", func(x c) error { return only(a.CreateTopics(x, 1, 1, nil, topic)) }},
		{"partitions", func(x c) error { return only(a.UpdatePartitions(x, 3, extra)) }},
		{"topic configs", func(x c) error { return only(a.DescribeTopicConfigs(x, topic)) }},
		{"broker configs", func(x c) error { return only(a.DescribeBrokerConfigs(x, 1)) }},
		{"alter", func(x c) error { return only(a.AlterTopicConfigs(x, set, topic)) }},
		{"alter all", func(x c) error { return only(a.AlterTopicConfigsState(x, set, topic)) }},
		{"start", func(x c) error { return only(a.ListStartOffsets(x, topic)) }},
		{"end", func(x c) error { return only(a.ListEndOffsets(x, topic)) }},
		{"committed", func(x c) error { return only(a.ListCommittedOffsets(x, topic)) }},
		{"newest", func(x c) error { return only(a.ListMaxTimestampOffsets(x, topic)) }},
		{"local", func(x c) error { return only(a.ListLocalLogStartOffsets(x, topic)) }},
		{"remote", func(x c) error { return only(a.ListLatestRemoteOffsets(x, topic)) }},
		{"after", func(x c) error { return only(a.ListOffsetsAfterMilli(x, 1, topic)) }},
		{"epochs", func(x c) error { return only(a.OffsetForLeaderEpoch(x, epochs)) }},
		{"delete records", func(x c) error { return only(a.DeleteRecords(x, trim)) }},
		{"log dirs", func(x c) error { return only(a.DescribeAllLogDirs(x, parts)) }},
		{"elect", func(x c) error {
			return only(a.ElectLeaders(x, kadm.ElectPreferredReplica, parts))
		}},
		{"delete", func(x c) error { return only(a.DeleteTopics(x, extra, d.topic("no"))) }},
	}
}

func (d *driver) askGroups(a *kadm.Client) []ask {
	topic, group, modern := d.topic("codec"), d.topic("group"), d.topic("consumer")
	share := d.topic("share")
	var offsets kadm.Offsets
	offsets.AddOffset(topic, 0, 1, 0)
	var set kadm.TopicsSet
	set.Add(topic, 0)
	leave := kadm.LeaveGroup(group).Reason("golden").InstanceIDs("member-2")
	type c = context.Context
	asks := []ask{
		{"groups", func(x c) error { return only(a.ListGroups(x)) }},
		{"groups by state", func(x c) error { return only(a.ListGroups(x, "Empty")) }},
		{"describe", func(x c) error { return only(a.DescribeGroups(x, group, d.topic("no"))) }},
		{"leave", func(x c) error { return only(a.LeaveGroup(x, leave)) }},
		{"commit", func(x c) error { return only(a.CommitOffsets(x, group, offsets)) }},
		{"fetch", func(x c) error { return only(a.FetchOffsets(x, group)) }},
		{"fetch some", func(x c) error { return only(a.FetchOffsetsForTopics(x, group, topic)) }},
		{"fetch many", func(x c) error { a.FetchManyOffsets(x, group, modern); return nil }},
		{"lag", func(x c) error { return only(a.Lag(x, group)) }},
		{"coordinators", func(x c) error { a.FindGroupCoordinators(x, group, "b"); return nil }},
		{"delete offsets", func(x c) error { return only(a.DeleteOffsets(x, group, set)) }},
	}
	if d.release == "" {
		asks = append(asks,
			ask{"modern", func(x c) error { return only(a.DescribeConsumerGroups(x, modern)) }},
			ask{"by type", func(x c) error { return only(a.ListGroupsByType(x, []string{"share"})) }},
			ask{"share", func(x c) error { return only(a.DescribeShareGroups(x, share)) }},
			ask{"share offsets", func(x c) error {
				return only(a.DescribeShareGroupOffsets(x, share))
			}},
			ask{"alter share", func(x c) error {
				return only(a.AlterShareGroupOffsets(x, share, offsets))
			}},
			ask{"drop share", func(x c) error {
				return only(a.DeleteShareGroupOffsets(x, share, topic))
			}},
			ask{"resources", func(x c) error { return only(a.ListConfigResources(x)) }},
		)
	}
	return append(asks, ask{"delete groups", func(x c) error {
		return only(a.DeleteGroups(x, group, d.topic("no")))
	}})
}

func (d *driver) askCluster(a *kadm.Client) []ask {
	topic := d.topic("codec")
	acl := kadm.NewACLs().Topics(topic).Allow("User:golden").AllowHosts("*").
		Operations(kadm.OpRead).ResourcePatternType(kadm.ACLPatternLiteral)
	user := kadm.UpsertSCRAM{
		User: "reader", Mechanism: kadm.ScramSha256, Iterations: 4096, Password: d.password,
	}
	name := "golden"
	entity := kadm.ClientQuotaEntity{{Type: "user", Name: &name}}
	quota := kadm.AlterClientQuotaEntry{
		Entity: entity, Ops: []kadm.AlterClientQuotaOp{{Key: "producer_byte_rate", Value: 1e9}},
	}
	var dirs kadm.AlterReplicaLogDirsReq
	var set kadm.TopicsSet
	set.Add(topic, 0)
	dirs.Add("/nowhere", set)
	var assign kadm.AlterPartitionAssignmentsReq
	assign.Assign(topic, 0, []int32{int32(d.brokers)})
	feature := kadm.FeatureUpdate{Feature: "group.version", MaxVersionLevel: 1, UpgradeType: 1}
	type c = context.Context
	return []ask{
		{"api versions", func(x c) error { return only(a.ApiVersions(x)) }},
		{"brokers", func(x c) error { return only(a.ListBrokers(x)) }},
		{"create acls", func(x c) error { return only(a.CreateACLs(x, acl)) }},
		{"acls", func(x c) error { return only(a.DescribeACLs(x, acl)) }},
		{"delete acls", func(x c) error { return only(a.DeleteACLs(x, acl)) }},
		{"upsert scram", func(x c) error {
			return only(a.AlterUserSCRAMs(x, nil, []kadm.UpsertSCRAM{user}))
		}},
		{"scram", func(x c) error { return only(a.DescribeUserSCRAMs(x)) }},
		{"alter quota", func(x c) error {
			return only(a.AlterClientQuotas(x, []kadm.AlterClientQuotaEntry{quota}))
		}},
		{"quotas", func(x c) error { return only(a.DescribeClientQuotas(x, false, nil)) }},
		{"alter dirs", func(x c) error { return only(a.AlterAllReplicaLogDirs(x, dirs)) }},
		{"assign", func(x c) error { return only(a.AlterPartitionAssignments(x, assign)) }},
		{"assigning", func(x c) error { return only(a.ListPartitionReassignments(x, nil)) }},
		{"features", func(x c) error { return only(a.UpdateFeatures(x, true, feature)) }},
		{"token", func(x c) error {
			asked := kadm.CreateDelegationToken{MaxLifetime: time.Hour}
			return only(a.CreateDelegationToken(x, asked))
		}},
	}
}

func (d *driver) askTransactions(a *kadm.Client) []ask {
	var set kadm.TopicsSet
	set.Add(d.topic("txn"), 0)
	id := d.topic("id")
	marker := kadm.TxnMarkers{ProducerID: 99999, ProducerEpoch: 1, Topics: set}
	type c = context.Context
	return []ask{
		{"producers", func(x c) error { return only(a.DescribeProducers(x, set)) }},
		{"transactions", func(x c) error { return only(a.ListTransactions(x, nil, nil)) }},
		{"transaction", func(x c) error { return only(a.DescribeTransactions(x, id)) }},
		{"txn coordinator", func(x c) error { a.FindTxnCoordinators(x, id); return nil }},
		{"markers", func(x c) error { return only(a.WriteTxnMarkers(x, marker)) }},
	}
}
