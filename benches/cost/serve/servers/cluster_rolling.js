// server.js under Node's own cluster with a rolling restart on SIGUSR2, as tutorials have it: `cluster_rolling.js WORKERS`.
const cluster = require('node:cluster');

if (cluster.isPrimary) {
  for (let worker = 0; worker < Number(process.argv[2]); worker++) cluster.fork();
  process.on('SIGTERM', () => process.exit());
  process.on('SIGUSR2', async () => {
    for (const old of Object.values(cluster.workers)) {
      const replacement = cluster.fork();
      await new Promise((resolve) => replacement.once('listening', resolve));
      const gone = new Promise((resolve) => old.once('exit', resolve));
      const late = setTimeout(() => old.process.kill('SIGKILL'), 30_000);
      old.disconnect();
      await gone;
      clearTimeout(late);
    }
  });
} else {
  require('./server.js');
}
