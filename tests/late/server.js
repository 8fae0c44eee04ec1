// One path answers at once, the other one when it is told to by a file; SIGTERM closes the server, or, with `stay`,
// lets it serve on until that file is there.
'use strict';
const fs = require('node:fs');
const http = require('node:http');

const [, , port, gate, manner] = process.argv;

const opened = (then) => {
  const timer = setInterval(() => {
    if (fs.existsSync(gate)) {
      clearInterval(timer);
      then();
    }
  }, 5);
};

const server = http.createServer((request, response) => {
  response.setHeader('Connection', 'close');
  if (request.url === '/slow') opened(() => response.end('at last'));
  else response.end('at once');
});

process.on('SIGTERM', () => {
  console.log('stopping');
  if (manner === 'stay') opened(() => server.close());
  else server.close();
});

server.listen(Number(port), '127.0.0.1');
