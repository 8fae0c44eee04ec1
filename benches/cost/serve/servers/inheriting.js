// server.js on a socket that it has inherited: whatever asks for the port gets descriptor 3.
const net = require('node:net');

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function () { return listen.call(this, { fd: 3 }); };
require('./server.js');
