package main

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

// member is one push consumer and the bodies it was given, without the warm-up.
type member struct {
	consumer rocketmq.PushConsumer
	lock     sync.Mutex
	bodies   []string
}

func (m *member) add(body string) {
	m.lock.Lock()
	defer m.lock.Unlock()
	if body != "warm up" {
		m.bodies = append(m.bodies, body)
	}
}

// received returns the bodies in alphabetical order.
func (m *member) received() []string {
	m.lock.Lock()
	defer m.lock.Unlock()
	sorted := append([]string(nil), m.bodies...)
	sort.Strings(sorted)
	return sorted
}

func (m *member) accept(_ context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
	for _, message := range messages {
		m.add(string(message.Body))
	}
	return consumer.ConsumeSuccess, nil
}

func (c *cluster) newMember(group string, options ...consumer.Option) (*member, error) {
	pusher, err := rocketmq.NewPushConsumer(append([]consumer.Option{
		consumer.WithNameServer(c.namesrv),
		consumer.WithGroupName(group),
		consumer.WithInstance(c.instance()),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset),
	}, options...)...)
	if err != nil {
		return nil, err
	}
	return &member{consumer: pusher}, nil
}

func (c *cluster) startMember(group, topic, tags string, options ...consumer.Option) (*member, error) {
	m, err := c.newMember(group, options...)
	if err != nil {
		return nil, err
	}
	if err := m.consumer.Subscribe(topic, consumer.MessageSelector{Type: consumer.TAG, Expression: tags}, m.accept); err != nil {
		return nil, err
	}
	c.onClose(m.consumer.Shutdown)
	return m, m.consumer.Start()
}

// pushClustering checks that both members get messages and no message is lost while the second one joins.
func pushClustering(c *cluster) error {
	topic, err := c.topic("clustering")
	if err != nil {
		return err
	}
	group := c.name("clustering_group")
	one, err := c.startMember(group, topic, "*")
	if err != nil {
		return err
	}
	two, err := c.startMember(group, topic, "*")
	if err != nil {
		return err
	}
	// The Go client does not show which queues a member has, so: send until both have received something.
	var sent []string
	err = await("both members to receive", func() bool {
		bodies, err := c.send(topic, len(sent), len(sent)+4)
		sent = append(sent, bodies...)
		return err == nil && len(one.received()) > 0 && len(two.received()) > 0
	})
	if err != nil {
		return err
	}
	distinct := map[string]bool{}
	err = await("all messages", func() bool {
		for _, body := range append(one.received(), two.received()...) {
			distinct[body] = true
		}
		return len(distinct) == len(sent)
	})
	if err != nil {
		return err
	}
	// From here on the sharing is settled: exactly once.
	before := len(one.received()) + len(two.received())
	if _, err := c.send(topic, len(sent), len(sent)+40); err != nil {
		return err
	}
	err = await("40 more messages", func() bool { return before+40 <= len(one.received())+len(two.received()) })
	return errors.Join(err, equal(before+40, len(one.received())+len(two.received()), "deliveries"))
}

func pushBroadcasting(c *cluster) error {
	topic, err := c.topic("broadcasting")
	if err != nil {
		return err
	}
	group := c.name("broadcasting_group")
	var members []*member
	for i := 0; i < 2; i++ {
		m, err := c.startMember(group, topic, "*", consumer.WithConsumerModel(consumer.BroadCasting))
		if err != nil {
			return err
		}
		members = append(members, m)
	}
	sent, err := c.send(topic, 0, 40)
	if err != nil {
		return err
	}
	for _, m := range members {
		err := await("40 messages", func() bool { return len(sent) <= len(m.received()) })
		if err := errors.Join(err, equal(strings.Join(sent, ","), strings.Join(m.received(), ","), "bodies")); err != nil {
			return err
		}
	}
	return nil
}

func pushTags(c *cluster) error {
	topic, err := c.topic("tags")
	if err != nil {
		return err
	}
	for i, tag := range []string{"A", "B", "C", "AB", "", "A"} {
		if _, err := c.producer.SendSync(context.Background(), c.message(topic, i%4, tag, "before "+tag)); err != nil {
			return err
		}
	}
	some, err := c.startMember(c.name("tags_some"), topic, "A || B")
	if err != nil {
		return err
	}
	all, err := c.startMember(c.name("tags_all"), topic, "*")
	if err != nil {
		return err
	}
	if err := await("the waiting messages", func() bool { return len(some.received()) == 3 && len(all.received()) == 6 }); err != nil {
		return err
	}
	for i, tag := range []string{"C", "B", "A", "AB"} {
		if _, err := c.producer.SendSync(context.Background(), c.message(topic, i%4, tag, "after "+tag)); err != nil {
			return err
		}
	}
	err = await("the later messages", func() bool { return 5 <= len(some.received()) && 10 <= len(all.received()) })
	return errors.Join(err,
		equal("after A,after B,before A,before A,before B", strings.Join(some.received(), ","), "bodies of A || B"),
		equal(10, len(all.received()), "bodies of *"))
}

// pushResume checks that who comes after a member that left continues where it stopped.
func pushResume(c *cluster) error {
	topic, err := c.topic("resume")
	if err != nil {
		return err
	}
	if _, err := c.send(topic, 0, 20); err != nil {
		return err
	}
	group := c.name("resume_group")
	first, err := c.startMember(group, topic, "*")
	if err != nil {
		return err
	}
	err = await("progress over 20 messages", func() bool {
		return len(first.received()) == 20 && first.consumer.GetOffsetDiffMap()[topic] == 0
	})
	if err != nil {
		return err
	}
	if err := first.consumer.Shutdown(); err != nil {
		return err
	}
	later, err := c.send(topic, 20, 32)
	if err != nil {
		return err
	}
	second, err := c.startMember(group, topic, "*")
	if err != nil {
		return err
	}
	distinct := map[string]bool{}
	err = await("12 messages", func() bool {
		for _, body := range second.received() {
			distinct[body] = true
		}
		for _, body := range later {
			if !distinct[body] {
				return false
			}
		}
		return true
	})
	// A message whose listener had not returned when the first member stopped comes again.
	if again := len(distinct) - len(later); again >= 20 {
		return errors.Join(err, fmt.Errorf("all %d messages came again", again))
	}
	return err
}

func pushOrderly(c *cluster) error {
	topic, err := c.topic("orderly")
	if err != nil {
		return err
	}
	m, err := c.newMember(c.name("orderly_group"), consumer.WithConsumerOrder(true))
	if err != nil {
		return err
	}
	var lock sync.Mutex
	byQueue := map[int][]string{}
	count := func() int {
		lock.Lock()
		defer lock.Unlock()
		total := 0
		for _, bodies := range byQueue {
			total += len(bodies)
		}
		return total
	}
	err = m.consumer.Subscribe(topic, consumer.MessageSelector{}, func(_ context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		lock.Lock()
		defer lock.Unlock()
		for _, message := range messages {
			if body := string(message.Body); body != "warm up" {
				byQueue[message.Queue.QueueId] = append(byQueue[message.Queue.QueueId], body)
			}
		}
		return consumer.ConsumeSuccess, nil
	})
	if err != nil {
		return err
	}
	c.onClose(m.consumer.Shutdown)
	if err := m.consumer.Start(); err != nil {
		return err
	}
	if _, err := c.send(topic, 0, 80); err != nil {
		return err
	}
	if err := await("80 messages", func() bool { return 80 <= count() }); err != nil {
		return err
	}
	for queue, bodies := range byQueue {
		if len(bodies) != 20 || !sort.StringsAreSorted(bodies) {
			return fmt.Errorf("queue %d was consumed as %v", queue, bodies)
		}
	}
	return nil
}

// pushRetry checks that a refused message comes back, counted, under its own topic.
func pushRetry(c *cluster) error {
	topic, err := c.topic("retry")
	if err != nil {
		return err
	}
	// The retry topic exists from the group's first heartbeat on. A client that starts later has its route at
	// once; the one that caused it would find it only at its next route refresh, 30 s later.
	group := c.name("retry_group")
	pioneer, err := c.startMember(group, topic, "*")
	if err != nil {
		return err
	}
	if err := await("the retry topic", func() bool { return len(c.queues("%RETRY%"+group)) > 0 }); err != nil {
		return err
	}
	if err := pioneer.consumer.Shutdown(); err != nil {
		return err
	}
	m, err := c.newMember(group)
	if err != nil {
		return err
	}
	var deliveries atomic.Int32
	failure := make(chan error, 16)
	err = m.consumer.Subscribe(topic, consumer.MessageSelector{}, func(ctx context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		message := messages[0]
		if string(message.Body) == "warm up" {
			return consumer.ConsumeSuccess, nil
		}
		failure <- errors.Join(
			equal(deliveries.Load(), message.ReconsumeTimes, "reconsume times"),
			equal(topic, message.Topic, "topic"))
		if concurrently, ok := primitive.GetConcurrentlyCtx(ctx); ok {
			concurrently.DelayLevelWhenNextConsume = 1
		}
		if deliveries.Add(1) < 2 {
			return consumer.ConsumeRetryLater, nil
		}
		return consumer.ConsumeSuccess, nil
	})
	if err != nil {
		return err
	}
	c.onClose(m.consumer.Shutdown)
	if err := m.consumer.Start(); err != nil {
		return err
	}
	if _, err := c.send(topic, 0, 1); err != nil {
		return err
	}
	for i := 0; i < 2; i++ {
		if err := await(fmt.Sprintf("delivery %d", i+1), func() bool { return len(failure) > 0 }); err != nil {
			return err
		}
		if err := <-failure; err != nil {
			return err
		}
	}
	return nil
}
