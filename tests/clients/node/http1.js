// node's http: one connection that is kept, bodies of known and of unknown length, and an Expect that is waited for.
const assert = require('node:assert');
const http = require('node:http');

const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

function ask(options, pieces = []) {
  return new Promise((resolve, reject) => {
    const request = http.request({ host: '127.0.0.1', port: process.argv[2], agent, ...options }, (answer) => {
      const data = [];
      answer.on('data', (piece) => data.push(piece));
      answer.on('end', () => resolve({ answer, body: Buffer.concat(data), reused: request.reusedSocket }));
    });
    request.on('error', reject);
    if (options.headers?.expect) {
      request.on('continue', () => request.end(Buffer.concat(pieces)));
      request.flushHeaders();
      return;
    }
    pieces.forEach((piece) => request.write(piece));
    request.end();
  });
}

async function main() {
  const large = Buffer.alloc(1 << 20, 'x');
  const first = await ask({ path: '/' });
  assert.deepStrictEqual([first.answer.statusCode, first.answer.httpVersion, first.reused], [200, '1.1', false]);
  const chunked = await ask({ method: 'POST' }, [large, large]);
  assert(chunked.body.equals(Buffer.concat([large, large])));
  const sized = await ask({ method: 'PUT', headers: { 'content-length': 5 } }, [Buffer.from('hello')]);
  assert.strictEqual(sized.body.toString(), 'hello');
  const expected = await ask({ method: 'POST', headers: { expect: '100-continue', 'content-length': 5 } }, [Buffer.from('there')]);
  assert.strictEqual(expected.body.toString(), 'there');
  const head = await ask({ method: 'HEAD' });
  assert.deepStrictEqual([head.answer.statusCode, head.body.length], [200, 0]);
  assert([chunked, sized, expected, head].every((one) => one.reused));
  agent.destroy();
}

main().then(() => console.log('good'));
