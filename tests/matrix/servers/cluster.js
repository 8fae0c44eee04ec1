const cluster = require('node:cluster');

if (cluster.isPrimary) {
  cluster.fork();
  cluster.fork();
  process.on('SIGTERM', () => cluster.disconnect());
} else {
  require('./server.js');
}
