// A member of a consumer group around one Node client, for the end-to-end tests.
// usage: member.js kafkajs|platformatic JSON; what it tells is described in
// ../python/member.py.
'use strict'

const client = process.argv[2]
const a = JSON.parse(process.argv[3])
const stopped = new Promise((resolve) => process.once('SIGTERM', resolve))

function tell(event) {
  console.log(JSON.stringify({ ...event, at: Date.now() }))
}

function tellRecords(records) {
  if (records.length > 0) console.log(records.map((r) => JSON.stringify(r)).join('\n'))
}

async function kafkajs() {
  const { Kafka, PartitionAssigners, logLevel } = require('kafkajs')
  const kafka = new Kafka({
    clientId: a.client || 'kafkajs',
    brokers: [a.bootstrap],
    logLevel: logLevel.ERROR,
    retry: { initialRetryTime: 100, maxRetryTime: 500, retries: 100 },
  })
  const consumer = kafka.consumer({
    groupId: a.group,
    sessionTimeout: a.session_ms,
    rebalanceTimeout: 10000,
    heartbeatInterval: Math.max(100, a.session_ms / 4),
    metadataMaxAge: 2000,
    maxWaitTimeInMs: 100,
    partitionAssigners: [PartitionAssigners.roundRobin],
  })
  const topic = a.topics[0]
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) =>
    tell({ assigned: (payload.memberAssignment[topic] || []).slice().sort((x, y) => x - y) }))
  consumer.on(consumer.events.REBALANCING, () => tell({ assigned: [], revoked: true }))
  consumer.on(consumer.events.COMMIT_OFFSETS, ({ payload }) => {
    for (const t of payload.topics) {
      tell({ committed: Object.fromEntries(t.partitions.map((p) => [p.partition, Number(p.offset)])) })
    }
  })
  await consumer.connect()
  await consumer.subscribe({ topics: a.topics, fromBeginning: true })
  await consumer.run({
    autoCommit: a.commit === 'auto',
    autoCommitInterval: 200,
    eachBatchAutoResolve: true,
    eachBatch: async ({ batch, heartbeat }) => {
      const records = batch.messages.map((m) => ({ p: batch.partition, o: Number(m.offset), v: String(m.value) }))
      tellRecords(records)
      if (a.commit === 'sync' || a.commit === 'async') {
        const offset = String(records[records.length - 1].o + 1)
        const commit = consumer.commitOffsets([{ topic: batch.topic, partition: batch.partition, offset }])
        if (a.commit === 'sync') await commit
        else commit.catch((e) => tell({ refused: String(e) }))
      }
      await heartbeat()
    },
  })
  await stopped
  await consumer.disconnect()
}

async function platformatic() {
  const { Consumer, MessagesStreamModes, MessagesStreamFallbackModes, stringDeserializers } =
    require('@platformatic/kafka')
  const groups = a.protocol === 'consumer'
    ? { groupProtocol: 'consumer', ...(a.assignor ? { groupRemoteAssignor: a.assignor } : {}) }
    : { sessionTimeout: a.session_ms, rebalanceTimeout: 10000, heartbeatInterval: Math.max(100, a.session_ms / 4) }
  const consumer = new Consumer({
    clientId: a.client || 'platformatic',
    groupId: a.group,
    bootstrapBrokers: [a.bootstrap],
    deserializers: stringDeserializers,
    metadataMaxAge: 2000,
    maxWaitTime: 100,
    retries: 100,
    retryDelay: 100,
    ...groups,
  })
  const topic = a.topics[0]
  let told = ''
  const owned = () => {
    const mine = (consumer.assignments || []).filter((t) => t.topic === topic).flatMap((t) => t.partitions)
    mine.sort((x, y) => x - y)
    if (JSON.stringify(mine) !== told) {
      told = JSON.stringify(mine)
      tell({ assigned: mine, generation: consumer.generationId })
    }
  }
  consumer.on('consumer:group:join', owned)
  consumer.on('consumer:group:rebalance', () => {
    told = ''
    tell({ assigned: [], revoked: true })
  })
  // With KIP-848 the assignment changes without an event of its own.
  const watch = setInterval(owned, 50)
  const stream = await consumer.consume({
    topics: a.topics,
    autocommit: a.commit === 'auto' ? 200 : false,
    mode: MessagesStreamModes.COMMITTED,
    fallbackMode: MessagesStreamFallbackModes.EARLIEST,
    maxWaitTime: 100,
  })
  stream.on('data', async (m) => {
    tellRecords([{ p: m.partition, o: Number(m.offset), v: m.value }])
    if (a.commit !== 'sync' && a.commit !== 'async') return
    if (a.commit === 'sync') stream.pause()
    try {
      await m.commit()
      tell({ committed: { [m.partition]: Number(m.offset) + 1 } })
    } catch (e) {
      tell({ refused: String(e) })
    }
    if (a.commit === 'sync') stream.resume()
  })
  stream.on('error', (e) => tell({ trouble: String(e) }))
  await stopped
  clearInterval(watch)
  await consumer.close(true)
}

const clients = { kafkajs, platformatic }
clients[client]().then(
  () => {
    tell({ left: true })
    process.exit(0)
  },
  (e) => {
    console.error(e)
    process.exit(1)
  },
)
