const http = require('node:http');

const server = http.createServer((request, response) => response.end(`pid ${process.pid}\n`));
server.listen(Number(process.argv[2]));
process.on('SIGTERM', () => server.close());
