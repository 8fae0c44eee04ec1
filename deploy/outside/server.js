// A server as people write it; it knows nothing of drainit.
const http = require('node:http');

const server = http.createServer((request, response) => response.end('hello\n'));
server.listen(8080);
process.on('SIGTERM', () => server.close());
