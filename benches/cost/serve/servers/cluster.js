// server.js under Node's own cluster, as its documentation has it: `cluster.js WORKERS`.
const cluster = require('node:cluster');

if (cluster.isPrimary) {
  for (let worker = 0; worker < Number(process.argv[2]); worker++) cluster.fork();
  cluster.on('exit', () => cluster.fork());
  process.on('SIGTERM', () => process.exit());
} else {
  require('./server.js');
}
