// A server as people write it for PM2 or under a cluster master of their own. Each argument is something that it does,
// one after the other: see tests/node_ipc.rs.
'use strict';
const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');

const say = (line) => fs.writeSync(1, line + '\n');
const server = http.createServer((request, response) => {
  // Slow enough to be in flight when the server is told to finish.
  setTimeout(() => response.end('ok'), request.url === '/slow' ? 50 : 0);
});
const finish = () => server.close(() => process.exit(0));

const steps = {
  serve: (next) => server.listen({ fd: 3 }, next),
  await: (next, path) => {
    const timer = setInterval(() => {
      if (fs.existsSync(path)) {
        clearInterval(timer);
        next();
      }
    }, 2);
  },
  say: (next, line) => { say(line); next(); },
  send: (next, json) => process.send(JSON.parse(json), next),
  message: (next) => {
    process.on('message', (message) => { say(`message ${JSON.stringify(message)}`); finish(); });
    next();
  },
  disconnect: (next) => {
    process.on('disconnect', () => { say('disconnect'); finish(); });
    next();
  },
  term: (next) => {
    process.on('SIGTERM', () => { say('TERM'); finish(); });
    next();
  },
  // Nothing else keeps it alive then.
  close: (next) => { process.on('SIGTERM', () => server.close()); next(); },
  hangup: (next) => { process.disconnect(); next(); },
  // A server and one of its connections go to the parent, as in a master that hands sockets out.
  handles: (next) => {
    const given = net.createServer((connection) => {
      process.send('a connection', connection, () => given.close(() => { say('all closed'); next(); }));
    });
    given.listen(0, '127.0.0.1', () => {
      process.send('a server', given, () => net.connect(given.address().port, '127.0.0.1').on('error', () => {}));
    });
  },
};

const run = ([word, ...rest]) => {
  if (word === undefined) return;
  const [name, ...value] = word.split('=');
  steps[name](() => run(rest), value.join('='));
};
run(process.argv.slice(2));
