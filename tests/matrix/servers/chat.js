// A WebSocket server as people write it, on the `ws` package: it says who it is, and repeats what it hears.
const http = require('node:http');
const { WebSocketServer } = require('ws');

const server = http.createServer((request, response) => response.end('no WebSocket\n'));
const sockets = new WebSocketServer({ server });
sockets.on('connection', (socket) => {
  socket.send(`pid ${process.pid}`);
  socket.on('message', (message) => socket.send(`${message}`));
});
server.listen(Number(process.argv[2]));
// No connection more; those that there are go on until their clients have done with them.
process.on('SIGTERM', () => server.close());
