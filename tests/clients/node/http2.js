// node's http2: many streams of one session, a body both ways at once, trailers, a stream that is given up, a ping.
const assert = require('node:assert');
const fs = require('node:fs');
const http2 = require('node:http2');

const [, , url, ca] = process.argv;
const session = http2.connect(url, ca ? { ca: fs.readFileSync(ca) } : {});

function ask(headers, body = '') {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ':method': 'POST', ...headers });
    const data = [];
    let answer, trailers;
    stream.on('response', (fields) => { answer = fields; });
    stream.on('trailers', (fields) => { trailers = fields; });
    stream.on('data', (piece) => data.push(piece));
    stream.on('close', () => resolve({ answer, trailers, body: Buffer.concat(data) }));
    stream.on('error', reject);
    stream.end(body);
  });
}

async function main() {
  const large = Buffer.alloc(3 << 20, 'y');
  const answers = await Promise.all([...Array(60).keys()].map((number) => ask({ ':path': '/' }, String(number))));
  assert.deepStrictEqual(answers.map(({ body }) => body.toString()), [...Array(60).keys()].map(String));
  assert((await ask({ ':path': '/' }, large)).body.equals(large));
  const told = await ask({ ':path': '/trailers', te: 'trailers' });
  assert.deepStrictEqual([told.answer[':status'], told.body.toString(), told.trailers['x-sum']], [200, 'body', '42']);
  await new Promise((resolve, reject) => {
    const stream = session.request({ ':path': '/endless' });
    stream.once('data', () => stream.close(http2.constants.NGHTTP2_CANCEL));
    stream.on('close', resolve);
    stream.on('error', reject);
  });
  await new Promise((resolve, reject) => session.ping((error) => (error ? reject(error) : resolve())));
  assert.strictEqual((await ask({ ':path': '/' }, 'after')).body.toString(), 'after');
  assert.strictEqual(session.remoteSettings.enableConnectProtocol, true);
  await new Promise((resolve) => session.close(resolve));
}

main().then(() => console.log('good'));
