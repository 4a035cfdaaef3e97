package main

import (
	"context"
	"fmt"
	"math/rand"
	"sort"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/admin"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

// patience is longer than the slowest thing the client does on its own: its 20 s rebalance and 30 s route refresh.
const patience = 60 * time.Second

// cluster is what a scenario works against: one name server address, names nobody else uses, and clients that
// are shut down, last first, when the scenario ends.
type cluster struct {
	namesrv   primitive.NamesrvAddr
	run       string
	instances int
	shutdowns []func() error
	admin     admin.Admin
	producer  rocketmq.Producer
}

func newCluster(address string) (*cluster, error) {
	namesrv, err := primitive.NewNamesrvAddr(address)
	if err != nil {
		return nil, err
	}
	c := &cluster{namesrv: namesrv, run: fmt.Sprintf("%08x", rand.New(rand.NewSource(time.Now().UnixNano())).Uint32())}
	if c.admin, err = admin.NewAdmin(admin.WithResolver(primitive.NewPassthroughResolver(namesrv))); err != nil {
		return nil, err
	}
	c.onClose(c.admin.Close)
	c.producer, err = rocketmq.NewProducer(
		producer.WithNameServer(namesrv),
		producer.WithGroupName(c.name("producers")),
		producer.WithInstanceName(c.instance()),
		producer.WithQueueSelector(producer.NewManualQueueSelector()),
		producer.WithSendMsgTimeout(10*time.Second))
	if err != nil {
		return nil, err
	}
	if err = c.producer.Start(); err != nil {
		return nil, err
	}
	c.onClose(c.producer.Shutdown)
	return c, nil
}

func (c *cluster) onClose(shutdown func() error) { c.shutdowns = append(c.shutdowns, shutdown) }

func (c *cluster) close() {
	for i := len(c.shutdowns) - 1; i >= 0; i-- {
		// The scenario has its result by now; a client that cannot say goodbye does not change it.
		_ = c.shutdowns[i]()
	}
}

func (c *cluster) name(stem string) string { return "go_" + stem + "_" + c.run }

// instance names a client, so that several clients of one process are several members of their group.
func (c *cluster) instance() string {
	c.instances++
	return fmt.Sprintf("%s-%d", c.run, c.instances)
}

// topic makes the broker create a topic, with the client's default of four queues, by a first message "warm up"
// to queue 0, and waits for its route.
func (c *cluster) topic(stem string) (string, error) {
	topic := c.name(stem)
	automatic, err := rocketmq.NewProducer(
		producer.WithNameServer(c.namesrv),
		producer.WithGroupName(c.name("creators")),
		producer.WithInstanceName(c.instance()))
	if err != nil {
		return "", err
	}
	if err = automatic.Start(); err != nil {
		return "", err
	}
	defer automatic.Shutdown()
	if _, err = automatic.SendSync(context.Background(), primitive.NewMessage(topic, []byte("warm up"))); err != nil {
		return "", fmt.Errorf("create %s: %w", topic, err)
	}
	err = await("route of "+topic, func() bool { return len(c.queues(topic)) == 4 })
	return topic, err
}

// queues lists the topic's queues in the order of their ids; none while the topic has no route.
func (c *cluster) queues(topic string) []*primitive.MessageQueue {
	queues, err := c.admin.FetchPublishMessageQueues(context.Background(), topic)
	if err != nil {
		return nil
	}
	sort.Slice(queues, func(i, j int) bool { return queues[i].QueueId < queues[j].QueueId })
	return queues
}

func (c *cluster) message(topic string, queue int, tag, body string) *primitive.Message {
	message := primitive.NewMessage(topic, []byte(body))
	message.Queue = c.queues(topic)[queue]
	if tag != "" {
		message.WithTag(tag)
	}
	return message
}

// send sends the bodies "body <from>" to "body <to - 1>", to the queues in turn.
func (c *cluster) send(topic string, from, to int) ([]string, error) {
	var bodies []string
	for i := from; i < to; i++ {
		body := fmt.Sprintf("body %03d", i)
		if _, err := c.producer.SendSync(context.Background(), c.message(topic, i%4, "", body)); err != nil {
			return nil, err
		}
		bodies = append(bodies, body)
	}
	return bodies, nil
}

func (c *cluster) pullConsumer(topic string) (rocketmq.PullConsumer, error) {
	puller, err := rocketmq.NewPullConsumer(
		consumer.WithNameServer(c.namesrv),
		consumer.WithGroupName(c.name("pullers")+c.instance()),
		consumer.WithInstance(c.instance()),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset))
	if err != nil {
		return nil, err
	}
	if err = puller.Subscribe(topic, consumer.MessageSelector{}); err != nil {
		return nil, err
	}
	c.onClose(puller.Shutdown)
	return puller, puller.Start()
}

// read reads all messages of a topic but the warm-up, each queue from 0 to its end, by their bodies.
func (c *cluster) read(topic string) (map[string]*primitive.MessageExt, error) {
	puller, err := c.pullConsumer(topic)
	if err != nil {
		return nil, err
	}
	messages := map[string]*primitive.MessageExt{}
	for _, queue := range c.queues(topic) {
		// A pull at the end would be held by the broker; one far beyond it is answered with the end at once.
		beyond, err := puller.PullFrom(context.Background(), queue, 1<<40, 1)
		if err != nil {
			return nil, err
		}
		for offset := int64(0); offset < beyond.NextBeginOffset; {
			result, err := puller.PullFrom(context.Background(), queue, offset, 32)
			if err != nil {
				return nil, err
			}
			if result.Status != primitive.PullFound {
				return nil, fmt.Errorf("status %d at %d of %d in %v", result.Status, offset, result.MaxOffset, queue)
			}
			for _, message := range result.GetMessageExts() {
				if message.QueueOffset != offset {
					return nil, fmt.Errorf("offset %d where %d was expected in %v", message.QueueOffset, offset, queue)
				}
				offset++
				body := string(message.Body)
				if messages[body] != nil {
					return nil, fmt.Errorf("stored twice: %s", body)
				}
				messages[body] = message
			}
		}
	}
	delete(messages, "warm up")
	return messages, nil
}

func await(what string, holds func() bool) error {
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v for %s", patience, what)
		}
	}
	return nil
}

func equal[T comparable](expected, actual T, what string) error {
	if expected != actual {
		return fmt.Errorf("%s: expected %v, got %v", what, expected, actual)
	}
	return nil
}
