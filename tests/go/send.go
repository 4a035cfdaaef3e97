package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand"
	"sync"

	"github.com/apache/rocketmq-client-go/v2/primitive"
)

// sendSync checks that every answer names where the message is, and that it is there with all it was sent with.
func sendSync(c *cluster) error {
	topic, err := c.topic("sync")
	if err != nil {
		return err
	}
	results := map[string]*primitive.SendResult{}
	for i := 0; i < 40; i++ {
		body := fmt.Sprintf("body %d", i)
		message := c.message(topic, i%4, fmt.Sprintf("Tag%d", i%3), body)
		message.WithKeys([]string{fmt.Sprintf("key%d", i)})
		message.WithProperty("colour", "blue")
		result, err := c.producer.SendSync(context.Background(), message)
		if err != nil {
			return err
		}
		if err := equal(primitive.SendOK, result.Status, "status"); err != nil {
			return err
		}
		results[body] = result
	}
	stored, err := c.read(topic)
	if err != nil {
		return err
	}
	for i := 0; i < 40; i++ {
		body := fmt.Sprintf("body %d", i)
		message, result := stored[body], results[body]
		if message == nil {
			return fmt.Errorf("not stored: %s", body)
		}
		err := errors.Join(
			equal(fmt.Sprintf("Tag%d", i%3), message.GetTags(), "tags"),
			equal(fmt.Sprintf("key%d", i), message.GetKeys(), "keys"),
			equal("blue", message.GetProperty("colour"), "user property"),
			equal(result.MessageQueue.QueueId, message.Queue.QueueId, "queue id"),
			equal(result.QueueOffset, message.QueueOffset, "queue offset"),
			equal(result.OffsetMsgID, message.OffsetMsgId, "offset message id"),
			equal(result.MsgID, message.MsgId, "message id"))
		if err != nil {
			return err
		}
	}
	return equal(40, len(stored), "stored messages")
}

func sendAsync(c *cluster) error {
	topic, err := c.topic("async")
	if err != nil {
		return err
	}
	const count = 200
	var answered sync.WaitGroup
	var lock sync.Mutex
	var failures []error
	places := map[string]bool{}
	answered.Add(count)
	for i := 0; i < count; i++ {
		err := c.producer.SendAsync(context.Background(), func(_ context.Context, result *primitive.SendResult, err error) {
			lock.Lock()
			defer lock.Unlock()
			defer answered.Done()
			if err != nil {
				failures = append(failures, err)
				return
			}
			places[fmt.Sprintf("%d:%d", result.MessageQueue.QueueId, result.QueueOffset)] = true
		}, c.message(topic, i%4, "", fmt.Sprintf("body %d", i)))
		if err != nil {
			return err
		}
	}
	answered.Wait()
	stored, err := c.read(topic)
	return errors.Join(errors.Join(failures...), err,
		equal(count, len(places), "distinct places"), equal(count, len(stored), "stored messages"))
}

func sendOneway(c *cluster) error {
	topic, err := c.topic("oneway")
	if err != nil {
		return err
	}
	for i := 0; i < 50; i++ {
		if err := c.producer.SendOneWay(context.Background(), c.message(topic, i%4, "", fmt.Sprintf("body %d", i))); err != nil {
			return err
		}
	}
	return await("50 oneway messages", func() bool {
		stored, err := c.read(topic)
		return err == nil && len(stored) == 50
	})
}

// sendBatch checks that the messages of a batch stand one behind the other in one queue, each with its properties.
func sendBatch(c *cluster) error {
	topic, err := c.topic("batch")
	if err != nil {
		return err
	}
	var batch []*primitive.Message
	for i := 0; i < 10; i++ {
		message := c.message(topic, 2, fmt.Sprintf("Tag%d", i), fmt.Sprintf("body %d", i))
		batch = append(batch, message.WithKeys([]string{fmt.Sprintf("key%d", i)}))
	}
	result, err := c.producer.SendSync(context.Background(), batch...)
	if err != nil {
		return err
	}
	stored, err := c.read(topic)
	if err != nil {
		return err
	}
	for i := 0; i < 10; i++ {
		message := stored[fmt.Sprintf("body %d", i)]
		if message == nil {
			return fmt.Errorf("not stored: body %d of %d", i, len(stored))
		}
		err := errors.Join(
			equal(2, message.Queue.QueueId, "queue id"),
			equal(result.QueueOffset+int64(i), message.QueueOffset, "queue offset"),
			equal(fmt.Sprintf("Tag%d", i), message.GetTags(), "tags"),
			equal(fmt.Sprintf("key%d", i), message.GetKeys(), "keys"))
		if err != nil {
			return err
		}
	}
	return equal(10, len(stored), "stored messages")
}

// sendBigBody sends a body the client compresses and one that grows a little by it.
func sendBigBody(c *cluster) error {
	topic, err := c.topic("big")
	if err != nil {
		return err
	}
	text := bytes.Repeat([]byte("x"), 300_000)
	noise := make([]byte, 1<<20)
	rand.New(rand.NewSource(1)).Read(noise)
	for _, body := range [][]byte{text, noise} {
		if _, err := c.producer.SendSync(context.Background(), c.message(topic, 1, "", string(body))); err != nil {
			return err
		}
	}
	stored, err := c.read(topic)
	if err != nil {
		return err
	}
	if stored[string(text)] == nil || stored[string(noise)] == nil {
		return errors.New("a body came back changed")
	}
	if size := stored[string(text)].StoreSize; int(size) > len(text)/10 {
		return fmt.Errorf("the text was not stored compressed: %d bytes", size)
	}
	return nil
}
