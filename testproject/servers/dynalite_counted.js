/*
 * dynalite (a DynamoDB API server) that counts its requests and fails on demand.
 *
 *   node dynalite_counted.js '{"port": 8000, "path": null, "createTableMs": 0}'
 *
 *   GET  /__control   -> {"requests": {"PutItem": 3, ...}, "throttled": 0}
 *   POST /__control   <- {"reset": true, "latency_ms": 20, "faults": [], "healed": REGION, "fault": FAULT,
 *                         "reads_per_second": 200}
 *                        (each key is optional)
 *
 * FAULT: {"operation": "PutItem" or "*", "answer": ANSWER, "status": 400, "times": 1 or null, "after": false,
 *         "region": "us-east-1" or null}
 * ANSWER: an error type such as "ThrottlingException" is answered with `status`; "drop" closes the connection,
 * "hang" keeps it open and silent, "unprocessed" leaves a whole batch undone. With `after`, the operation is
 * carried out first and only its reply is lost.
 *
 * Reads beyond "reads_per_second" are answered with ProvisionedThroughputExceededException and not counted in
 * "requests" but in "throttled". What is not used is saved up for a tenth of a second.
 */
'use strict'

const dynalite = require('dynalite')

const CONTROL = '/__control'
const options = JSON.parse(process.argv[2] || '{}')

let requests = {}
let latency = 0
let faults = []
let readsPerSecond = 0
let reads = 0
let filledAt = 0
let throttled = 0

/** Whether this is a read for which there is no capacity; takes a read's worth of it otherwise. */
function isThrottled (operation) {
  if (!readsPerSecond || !['GetItem', 'BatchGetItem'].includes(operation)) return false
  const now = performance.now()
  reads = Math.min(readsPerSecond / 10, reads + (now - filledAt) / 1000 * readsPerSecond)
  filledAt = now
  if (reads < 1) return true
  reads -= 1
  return false
}

/** The region that a request is signed for: "Credential=ID/DATE/REGION/dynamodb/aws4_request". */
function regionOf (req) {
  return (req.headers.authorization || '').split('/')[2]
}

/** The first fault that is armed for this operation; one use of it is spent. */
function takeFault (operation, region) {
  const fault = faults.find((f) => (f.operation === '*' || f.operation === operation) &&
    (!f.region || f.region === region) && f.times !== 0)
  if (fault && fault.times) fault.times -= 1
  return fault
}

const THROTTLED = { answer: 'ProvisionedThroughputExceededException', status: 400 }

function sendJson (res, status, body) {
  res.writeHead(status, { 'Content-Type': 'application/x-amz-json-1.0' })
  res.end(JSON.stringify(body))
}

function readBody (req, done) {
  const chunks = []
  req.on('data', (chunk) => chunks.push(chunk))
  req.on('end', () => done(JSON.parse(Buffer.concat(chunks).toString() || '{}')))
}

function control (req, res) {
  if (req.method === 'GET') return sendJson(res, 200, { requests, throttled })
  readBody(req, (change) => {
    if (change.reset) {
      requests = {}
      throttled = 0
    }
    if (change.reads_per_second !== undefined) {
      readsPerSecond = change.reads_per_second
      reads = 0
      filledAt = performance.now()
    }
    if (change.latency_ms !== undefined) latency = change.latency_ms
    if (change.faults !== undefined) faults = change.faults
    if (change.healed !== undefined) faults = faults.filter((f) => f.region !== change.healed)
    if (change.fault !== undefined) faults.push(change.fault)
    sendJson(res, 200, {})
  })
}

/** Answer instead of dynalite: the operation is not carried out. */
function failBefore (fault, operation, req, res) {
  if (fault.answer === 'drop') return req.socket.destroy()
  readBody(req, (body) => {
    if (fault.answer === 'hang') return
    if (fault.answer === 'unprocessed') {
      return sendJson(res, 200, operation === 'BatchGetItem'
        ? { Responses: {}, UnprocessedKeys: body.RequestItems }
        : { UnprocessedItems: body.RequestItems })
    }
    sendJson(res, fault.status, {
      __type: 'com.amazonaws.dynamodb.v20120810#' + fault.answer,
      message: fault.answer + ' (injected)',
    })
  })
}

/** Let dynalite carry the operation out, then put the fault in the place of its reply. */
function failAfter (fault, req, res) {
  res.end = function () {
    delete res.end
    if (fault.answer === 'drop') return req.socket.destroy()
    if (fault.answer === 'hang') return
    for (const name of res.getHeaderNames()) res.removeHeader(name)
    sendJson(res, fault.status, {
      __type: 'com.amazonaws.dynamodb.v20120810#' + fault.answer,
      message: fault.answer + ' (injected)',
    })
  }
}

const server = dynalite(options)
const serve = server.listeners('request')[0]
server.removeAllListeners('request')
server.on('request', (req, res) => {
  if (req.url === CONTROL) return control(req, res)
  const operation = (req.headers['x-amz-target'] || '').split('.')[1] || 'unknown'
  const refused = isThrottled(operation)
  if (refused) throttled += 1
  else requests[operation] = (requests[operation] || 0) + 1
  const handle = () => {
    const fault = refused ? THROTTLED : takeFault(operation, regionOf(req))
    if (fault && !fault.after) return failBefore(fault, operation, req, res)
    if (fault) failAfter(fault, req, res)
    serve(req, res)
  }
  if (latency) setTimeout(handle, latency)
  else handle()
})

// dynalite throws when a client goes away in the middle of a request; clients with deadlines do that.
process.on('uncaughtException', (err) => {
  if (err.code === 'ECONNRESET' || err.code === 'EPIPE') return
  console.error(err)
  process.exit(1)
})

server.keepAliveTimeout = 0 // no idle limit: a pooled connection is closed by the tests only
server.listen(options.port, '127.0.0.1')
