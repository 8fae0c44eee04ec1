// As Node's documentation has it: stop accepting, and end when the last connection does. Under keep-alive that is never.
const http = require('http');
const net = require('net');
const server = http.createServer((request, response) => {
  console.log('got ' + request.url);
  setTimeout(() => response.end('hello\n'), request.url === '/slow' ? 30000 : 20);
});
server.keepAliveTimeout = 60000;
process.on('SIGTERM', () => {
  console.log('told');
  // What server.close() was before Node 19, and is for whatever is in use at that moment: nobody is sent away.
  net.Server.prototype.close.call(server);
});
server.listen(process.argv[2], '127.0.0.1');
