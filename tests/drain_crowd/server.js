// It keeps its connections, and on SIGTERM takes no more of them and lets go of those that it has after a while.
const http = require('node:http');
const net = require('node:net');

const [port, milliseconds] = process.argv.slice(2).map(Number);
const server = http.createServer((request, response) => response.end('x'));
server.keepAliveTimeout = 0;
server.listen(port);
process.on('SIGTERM', () => {
  // http.Server's own would end the idle ones at once.
  net.Server.prototype.close.call(server);
  setTimeout(() => server.closeAllConnections(), milliseconds);
});
