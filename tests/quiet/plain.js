// A server that knows nothing of signals; Node's own handler ends it.
const http = require('http');
http.createServer((request, response) => {
  if (request.url !== '/for-ever') setTimeout(() => response.end('hello\n'), 50);
}).listen(process.argv[2], '127.0.0.1');
