package main

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

// pullFrom pulls pages of one queue, and commits an offset that the broker then knows.
func pullFrom(c *cluster) error {
	topic, err := c.topic("pull_from")
	if err != nil {
		return err
	}
	puller, err := c.pullConsumer(topic)
	if err != nil {
		return err
	}
	for i := 0; i < 40; i++ {
		if _, err := c.producer.SendSync(context.Background(), c.message(topic, 3, "", fmt.Sprintf("body %d", i))); err != nil {
			return err
		}
	}
	queue := c.queues(topic)[3]
	end, err := puller.PullFrom(context.Background(), queue, 1000, 10)
	if err != nil {
		return err
	}
	if err := equal(primitive.PullOffsetIllegal, end.Status, "status beyond the end"); err != nil {
		return err
	}
	// The warm-up may have gone to this queue: count from the end.
	last := end.NextBeginOffset
	page, err := puller.PullFrom(context.Background(), queue, last-35, 7)
	if err != nil {
		return err
	}
	err = errors.Join(
		equal(primitive.PullFound, page.Status, "status"),
		equal(7, len(page.GetMessageExts()), "page size"),
		equal(last-28, page.NextBeginOffset, "next offset"),
		equal(last, page.MaxOffset, "max offset"))
	if err != nil {
		return err
	}
	if err := equal("body 5", string(page.GetMessageExts()[0].Body), "first body of the page"); err != nil {
		return err
	}
	if err := puller.UpdateOffset(queue, 12); err != nil {
		return err
	}
	if err := puller.PersistOffset(context.Background(), topic); err != nil {
		return err
	}
	offset, err := puller.CurrentOffset(queue)
	return errors.Join(err, equal(12, offset, "committed offset"))
}

// pullPoll polls a subscribed topic and acknowledges what came.
func pullPoll(c *cluster) error {
	topic, err := c.topic("pull_poll")
	if err != nil {
		return err
	}
	sent, err := c.send(topic, 0, 30)
	if err != nil {
		return err
	}
	puller, err := c.pullConsumer(topic)
	if err != nil {
		return err
	}
	var bodies []string
	err = await("30 messages", func() bool {
		request, err := puller.Poll(context.Background(), 200*time.Millisecond)
		if err != nil {
			return false
		}
		for _, message := range request.GetMsgList() {
			if body := string(message.Body); body != "warm up" {
				bodies = append(bodies, body)
			}
		}
		puller.ACK(context.Background(), request, consumer.ConsumeSuccess)
		return 30 <= len(bodies)
	})
	sort.Strings(bodies)
	return errors.Join(err, equal(strings.Join(sent, ","), strings.Join(bodies, ","), "bodies"))
}
