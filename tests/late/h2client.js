// So many HTTP/2 connections with a request each. Whatever GOAWAY says was not looked at is asked for again, of a server
// of its own, as gRPC clients do by themselves.
'use strict';
const http2 = require('node:http2');

const [, , url, count] = process.argv;
const tally = { answered: 0, goaway: 0, errors: 0 };

const elsewhere = http2.createServer((request, response) => response.end('here'));
elsewhere.listen(0, '127.0.0.1', () => {
  const second = `http://127.0.0.1:${elsewhere.address().port}`;
  let open = Number(count);
  const done = () => {
    if (--open > 0) return;
    console.log(`${tally.answered} answered, ${tally.goaway} after GOAWAY, ${tally.errors} errors`);
    process.exit(0);
  };
  for (let i = 0; i < Number(count); i++) ask(url, second, done);
});

function ask(at, next, done) {
  const session = http2.connect(at);
  let retry = false;
  let over = false;
  const request = session.request({ ':path': '/' });
  const end = (what) => {
    if (over) return;
    over = true;
    if (what === 'answered') tally.answered++;
    session.close();
    if (what === 'retry' && next) return ask(next, null, done);
    if (what !== 'answered') tally.errors++;
    done();
  };
  session.on('goaway', (code, last) => {
    if (code === http2.constants.NGHTTP2_NO_ERROR && last < request.id) {
      retry = true;
      tally.goaway++;
    }
  });
  session.on('error', () => end(retry ? 'retry' : 'error'));
  request.on('response', (headers) => {
    if (headers[':status'] !== 200) return end('error');
    request.resume();
    request.on('end', () => end('answered'));
  });
  request.on('error', () => end(retry ? 'retry' : 'error'));
  request.on('close', () => end(retry ? 'retry' : 'error'));
}
