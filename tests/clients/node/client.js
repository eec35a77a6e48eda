// A command around kafkajs for the end-to-end tests: one action a run, its
// arguments one JSON object, its result one JSON line on standard output.
'use strict'

const fs = require('node:fs')
const { Kafka, CompressionTypes, logLevel } = require('kafkajs')

async function produce(kafka, a) {
  const values = fs.readFileSync(a.file, 'utf8').split('\n').slice(0, -1)
  const producer = kafka.producer({ idempotent: a.idempotent === true, maxInFlightRequests: 1 })
  await producer.connect()
  let first
  for (let at = 0; at < values.length; at += 200) {
    const messages = values.slice(at, at + 200).map((value, i) => ({
      value,
      partition: a.partition,
      timestamp: String(a.timestamp + at + i),
    }))
    const compression = a.compression === 'gzip' ? CompressionTypes.GZIP : CompressionTypes.None
    const [answer] = await producer.send({ topic: a.topic, acks: -1, compression, messages })
    const offset = Number(answer.baseOffset)
    first = first === undefined ? offset : first
    if (offset !== first + at) throw new Error(`batch at ${at} got offset ${offset} after first offset ${first}`)
  }
  await producer.disconnect()
  return { produced: values.length, first_offset: first }
}

async function offsets(kafka, a) {
  const admin = kafka.admin()
  await admin.connect()
  const all = (await admin.fetchTopicOffsets(a.topic)).find((p) => p.partition === a.partition)
  const at = (await admin.fetchTopicOffsetsByTimestamp(a.topic, a.timestamp)).find((p) => p.partition === a.partition)
  await admin.disconnect()
  return { earliest: Number(all.low), latest: Number(all.high), at: Number(at.offset) }
}

// One send of two messages, of which only the first has a time: the batch's header says that of the first.
async function mixed(kafka, a) {
  const producer = kafka.producer({ maxInFlightRequests: 1 })
  await producer.connect()
  const messages = [
    { value: 'old', partition: a.partition, timestamp: String(a.timestamp) },
    { value: 'new', partition: a.partition },
  ]
  const [answer] = await producer.send({ topic: a.topic, acks: -1, messages })
  await producer.disconnect()
  return { produced: 2, first_offset: Number(answer.baseOffset) }
}

// Reads from the start until the record at an offset has come.
async function reachOffset(kafka, a) {
  const consumer = kafka.consumer({ groupId: `reach-${process.pid}-${Date.now()}` })
  await consumer.connect()
  await consumer.subscribe({ topic: a.topic, fromBeginning: true })
  let records = 0
  await new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`offset ${a.offset} has not come after ${records} records`)), 60000).unref()
    const eachMessage = async ({ partition, message }) => {
      if (partition !== a.partition) return
      records += 1
      if (Number(message.offset) === a.offset) resolve()
    }
    consumer.run({ eachMessage }).catch(reject)
  })
  await consumer.disconnect()
  return { records }
}

async function main() {
  const [action, text] = process.argv.slice(2)
  const a = JSON.parse(text)
  const kafka = new Kafka({ clientId: 'drumlin-tests-kafkajs', brokers: [a.bootstrap], logLevel: logLevel.ERROR })
  const actions = { produce, offsets, mixed, reachOffset }
  if (!actions[action]) throw new Error(`no action ${action}`)
  console.log(JSON.stringify(await actions[action](kafka, a)))
}

main().catch((e) => {
  console.error(e)
  console.log(JSON.stringify({ error: String(e) }))
  process.exit(1)
})
