// The primary of a cluster, as one worker among others: it talks to its own workers on channels of its own.
'use strict';
const cluster = require('node:cluster');
const fs = require('node:fs');
const http = require('node:http');

const say = (line) => fs.writeSync(1, line + '\n');
if (cluster.isPrimary) {
  const worker = cluster.fork();
  worker.on('message', (message) => say(`from below: ${message}`));
  worker.on('listening', () => process.send('ready'));
  worker.on('exit', (code) => { say(`below exited with ${code}`); process.exit(0); });
  process.on('message', (message) => { say(`from above: ${message}`); worker.disconnect(); });
} else {
  process.send('ready');
  http.createServer((request, response) => response.end('ok')).listen(process.env.OWN_PORT, '127.0.0.1');
}
