// A server as people write it: it listens on a port and knows nothing of other processes. It says who answers.
const http = require('node:http');

http.createServer((request, response) => {
  if (request.url === '/1ms') setTimeout(() => response.end(`${process.pid}`), 1);
  else response.end(`${process.pid}`);
}).listen(process.env.PORT);
