// A server on @grpc/grpc-js: on SIGTERM it takes no call more and finishes those that it has.
const grpc = require('@grpc/grpc-js');

const port = process.argv[2];
const bytes = { requestSerialize: (x) => x, requestDeserialize: (x) => x, responseSerialize: (x) => x, responseDeserialize: (x) => x };
const server = new grpc.Server();
server.addService(
  { Say: { path: '/test.Echo/Say', requestStream: false, responseStream: false, ...bytes } },
  {
    Say: (call, reply) => {
      const attempts = call.metadata.get('grpc-previous-rpc-attempts')[0] ?? 0;
      setTimeout(() => reply(null, Buffer.from(`${port} ${attempts}`)), Number(call.request));
    },
  },
);
server.bindAsync(`0.0.0.0:${port}`, grpc.ServerCredentials.createInsecure(), (error) => {
  if (error) throw error;
});
process.on('SIGTERM', () => {
  console.log('stopping');
  server.tryShutdown(() => process.exit());
});
