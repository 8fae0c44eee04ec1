// A server as people write it, with no thought of its end: `/` at once, `/brisk` in 50 ms, `/slow` in 100 ms, `/stream`
// in parts for 3 s.
const http = require('node:http');

const said = ['DRAINIT_VERSION', 'APP_VERSION', 'COLOUR'].map((name) => process.env[name] ?? '-').join(' ');
const listen = () => server.listen(Number(process.argv[2]));

const server = http.createServer((request, response) => {
  if (request.url === '/slow') return setTimeout(() => response.end('slow\n'), 100);
  if (request.url === '/brisk') return setTimeout(() => response.end('brisk\n'), 50);
  if (request.url === '/health') return response.writeHead(process.env.SICK ? 500 : 200).end('health\n');
  if (request.url !== '/stream') return response.end(`${said}\n`);
  let left = 30;
  const tick = setInterval(() => {
    if (left-- > 0) return response.write(`part ${left}\n`);
    clearInterval(tick);
    response.end('whole\n');
  }, 100);
});
setTimeout(listen, Number(process.env.BOOT_MS ?? 0));
module.exports = server;
