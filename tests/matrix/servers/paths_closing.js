// The same, ending as Node's documentation has it.
const server = require('./paths.js');

process.on('SIGTERM', () => server.close());
