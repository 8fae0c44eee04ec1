const express = require('express');

const app = express();
app.get('/', (request, response) => response.send(`pid ${process.pid}\n`));
const server = app.listen(Number(process.argv[2]));
process.on('SIGTERM', () => server.close());
