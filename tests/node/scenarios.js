'use strict';

// Runs one scenario with the stock Node client, by name, against the name server given by NAMESRV. Exit code 0:
// passed; 1: failed, with the reason on stderr; 2: no such scenario. Without a name, prints all names.

const assert = require('assert');
const crypto = require('crypto');
const { Consumer, Message, Producer } = require('ali-ons');

// Longer than the slowest thing the client does on its own: its 10 s rebalance and 30 s route refresh.
const PATIENCE_MS = 60 * 1000;
const RUN = crypto.randomBytes(4).toString('hex');
const common = {
  nameSrv: process.env.NAMESRV || '127.0.0.1:9876',
  // Asked only for the address of a name server, which is given.
  httpclient: { request() { throw new Error('no HTTP request is expected'); } },
  logger: { debug() {}, info() {}, warn() {}, error(...words) { console.error(...words); } },
};
const open = [];
let instances = 0;

function named(stem) {
  return `node_${stem}_${RUN}`;
}

async function await_(what, holds) {
  const deadline_ms = Date.now() + PATIENCE_MS;
  while (!await holds()) {
    assert(Date.now() < deadline_ms, `waited ${PATIENCE_MS} ms for ${what}`);
    await new Promise(resolve => setTimeout(resolve, 10));
  }
}

async function newProducer() {
  const producer = new Producer({ ...common, producerGroup: named('producers'), instanceName: `${RUN}-${instances++}` });
  producer.on('error', err => console.error(err));
  open.push(producer);
  await producer.ready();
  return producer;
}

/** This client cannot send to a topic that does not exist yet; its unused call for creating one can still be made. */
async function newTopic(producer, stem) {
  const client = producer._mqClient;
  const topicName = named(stem);
  const template = await client.getTopicRouteInfoFromNameServer('TBW102', 3000);
  const topicConfig = { topicName, readQueueNums: 4, writeQueueNums: 4, perm: 6, topicFilterType: 'SINGLE_TAG', topicSysFlag: 0, order: false };
  for (const { brokerAddrs } of template.brokerDatas) {
    await client.createTopic(brokerAddrs[0], 'TBW102', topicConfig, 3000);
  }
  await await_(`route of ${topicName}`, () => client.getTopicRouteInfoFromNameServer(topicName, 3000).then(() => true, () => false));
  return topicName;
}

/** A member of a group; `bodies` are what it was given. The handler's answer decides about a retry. */
async function newMember(group, topic, tags, { isBroadcast = false, handler = async () => undefined } = {}) {
  const consumer = new Consumer({
    ...common,
    consumerGroup: group,
    instanceName: `${RUN}-${instances++}`,
    consumeFromWhere: 'CONSUME_FROM_FIRST_OFFSET',
    // A group's retry topic is created by its first heartbeat.
    pollNameServerInteval: 1000,
    rebalanceInterval: 1000,
    isBroadcast,
  });
  consumer.on('error', err => console.error(err));
  open.push(consumer);
  const member = { consumer, bodies: [] };
  consumer.subscribe(topic, tags, async message => {
    member.bodies.push(message.body.toString());
    return handler(message);
  });
  await consumer.ready();
  return member;
}

async function send(producer, topic, from, to) {
  const bodies = [];
  for (let i = from; i < to; i++) {
    const body = `body ${String(i).padStart(3, '0')}`;
    const result = await producer.send(new Message(topic, 'Tag', body));
    assert.strictEqual(result.sendStatus, 'SEND_OK');
    bodies.push(body);
  }
  return bodies;
}

/** Queues of the topic this member works on. */
function queueCount(member, topic) {
  return [ ...member.consumer.processQueueTable.values() ].filter(item => item.messageQueue.topic === topic).length;
}

const scenarios = {
  async send() {
    const producer = await newProducer();
    const topic = await newTopic(producer, 'send');
    const nextOffsets = new Map();
    const sent = new Map();
    for (let i = 0; i < 20; i++) {
      const message = new Message(topic, `Tag${i % 3}`, `body ${i}`);
      message.keys = [ `key${i}` ];
      const result = await producer.send(message);
      const queueId = Number(result.messageQueue.queueId);
      assert.strictEqual(result.sendStatus, 'SEND_OK');
      assert.strictEqual(Number(result.queueOffset), nextOffsets.get(queueId) || 0, `offset in queue ${queueId}`);
      nextOffsets.set(queueId, Number(result.queueOffset) + 1);
      sent.set(`body ${i}`, { i, queueId, queueOffset: Number(result.queueOffset) });
    }
    const large = 'x'.repeat(100 * 1000);
    await producer.send(new Message(topic, 'Large', large));
    const received = new Map();
    await newMember(named('send_group'), topic, '*', {
      async handler(message) { received.set(message.body.toString(), message); },
    });
    await await_('21 messages', () => received.size === 21);
    assert(received.has(large), 'a compressed body came back changed');
    for (const [ body, { i, queueId, queueOffset }] of sent) {
      const message = received.get(body);
      assert(message, `not received: ${body}`);
      assert.strictEqual(message.tags, `Tag${i % 3}`);
      assert.strictEqual(message.keys, `key${i}`);
      assert.strictEqual(message.queueId, queueId);
      assert.strictEqual(Number(message.queueOffset), queueOffset);
    }
  },

  async push_clustering() {
    const producer = await newProducer();
    const topic = await newTopic(producer, 'clustering');
    const group = named('clustering_group');
    await send(producer, topic, 0, 1);
    const one = await newMember(group, topic, '*');
    await await_('the first message', () => one.bodies.length === 1);
    const two = await newMember(group, topic, '*');
    await await_('both to have two queues', () => queueCount(one, topic) === 2 && queueCount(two, topic) === 2);
    // A queue's new owner may begin again at what the old one had not yet committed.
    one.bodies.length = two.bodies.length = 0;
    const sent = await send(producer, topic, 1, 61);
    await await_('60 messages', () => new Set([ ...one.bodies, ...two.bodies ].filter(body => body !== 'body 000')).size === 60);
    assert(one.bodies.length > 0 && two.bodies.length > 0, 'one member got everything');
    assert.deepStrictEqual([ ...one.bodies, ...two.bodies ].filter(body => body !== 'body 000').sort(), sent);
  },

  async push_broadcasting() {
    const producer = await newProducer();
    const topic = await newTopic(producer, 'broadcasting');
    const sent = await send(producer, topic, 0, 30);
    const members = [];
    for (let i = 0; i < 2; i++) {
      members.push(await newMember(named('broadcasting_group'), topic, '*', { isBroadcast: true }));
    }
    sent.push(...await send(producer, topic, 30, 50));
    for (const member of members) {
      await await_('50 messages', () => member.bodies.length >= 50);
      assert.deepStrictEqual([ ...member.bodies ].sort(), sent);
    }
  },

  async push_tags() {
    const producer = await newProducer();
    const topic = await newTopic(producer, 'tags');
    for (const tag of [ 'A', 'B', 'C', 'AB', 'A' ]) {
      await producer.send(new Message(topic, tag, `before ${tag}`));
    }
    const some = await newMember(named('tags_some'), topic, 'A || B');
    const all = await newMember(named('tags_all'), topic, '*');
    await await_('the waiting messages', () => some.bodies.length === 3 && all.bodies.length === 5);
    for (const tag of [ 'C', 'B', 'AB', 'A' ]) {
      await producer.send(new Message(topic, tag, `after ${tag}`));
    }
    await await_('the later messages', () => some.bodies.length >= 5 && all.bodies.length >= 9);
    assert.deepStrictEqual([ ...some.bodies ].sort(), [ 'after A', 'after B', 'before A', 'before A', 'before B' ]);
    assert.strictEqual(all.bodies.length, 9);
  },

  async push_resume() {
    const producer = await newProducer();
    const topic = await newTopic(producer, 'resume');
    const group = named('resume_group');
    await send(producer, topic, 0, 20);
    const first = await newMember(group, topic, '*');
    await await_('20 messages', () => first.bodies.length === 20);
    await first.consumer.close();
    const later = await send(producer, topic, 20, 32);
    const second = await newMember(group, topic, '*');
    await await_('12 messages', () => second.bodies.length >= 12);
    assert.deepStrictEqual([ ...second.bodies ].sort(), later);
  },

  async push_retry() {
    const producer = await newProducer();
    const topic = await newTopic(producer, 'retry');
    const times = [];
    await producer.send(new Message(topic, 'Tag', 'again'));
    await newMember(named('retry_group'), topic, '*', {
      async handler(message) {
        times.push(message.reconsumeTimes);
        return times.length < 2 ? Consumer.ACTION_RETRY : undefined;
      },
    });
    await await_('two deliveries', () => times.length >= 2);
    assert.deepStrictEqual(times, [ 0, 1 ]);
  },
};

async function main(name) {
  if (!name) {
    Object.keys(scenarios).forEach(each => console.log(each));
    return 0;
  }
  if (!scenarios[name]) {
    console.error(`no scenario is named ${name}`);
    return 2;
  }
  try {
    await scenarios[name]();
    console.log(`${name}: passed`);
    return 0;
  } catch (failure) {
    console.error(failure);
    return 1;
  } finally {
    for (const client of open.reverse()) {
      // The scenario has its result; a client that cannot say goodbye does not change it.
      await Promise.resolve(client.close()).catch(() => {});
    }
  }
}

main(process.argv[2]).then(code => process.exit(code));
