// ws, the WebSocket of node: text and binary, large and many, compressed, a ping of ours, and a close with a reason.
const assert = require('node:assert');
const WebSocket = require('ws');

const socket = new WebSocket(process.argv[2], { perMessageDeflate: { threshold: 0 } });
const waiting = [];
const heard = [];
socket.on('message', (data, binary) => {
  const one = binary ? data : data.toString();
  if (waiting.length) waiting.shift()(one);
  else heard.push(one);
});
const next = () => new Promise((resolve) => (heard.length ? resolve(heard.shift()) : waiting.push(resolve)));
const event = (name) => new Promise((resolve) => socket.once(name, (...all) => resolve(all)));

async function main() {
  await event('open');
  assert.match(socket.extensions, /permessage-deflate/);
  for (const word of ['hello', '\u{1f600} caf\u00e9', 'x'.repeat(1 << 20)]) {
    socket.send(word);
    assert.strictEqual(await next(), word);
  }
  const data = Buffer.from(Array.from({ length: 1 << 18 }, (_, i) => (i * 7919) & 255));
  socket.send(data, { compress: false });
  assert(data.equals(await next()));
  for (let i = 0; i < 200; i += 1) socket.send(String(i));
  for (let i = 0; i < 200; i += 1) assert.strictEqual(await next(), String(i));
  socket.ping('there?');
  assert.strictEqual((await event('pong'))[0].toString(), 'there?');
  socket.close(4001, 'done');
  assert.strictEqual((await event('close'))[0], 4001);
}

main().then(() => console.log('good'));
