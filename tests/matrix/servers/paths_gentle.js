// The same, ending so that no client is surprised: the next answer on each connection is the last, and says so.
const net = require('node:net');
const server = require('./paths.js');

process.on('SIGTERM', () => {
  server.prependListener('request', (request, response) => response.setHeader('Connection', 'close'));
  // http.Server's own would end those that rest at this moment.
  net.Server.prototype.close.call(server);
  setTimeout(() => server.closeIdleConnections(), 2000).unref();
});
