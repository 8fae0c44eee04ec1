# Writes raw bytes on Node's channel, as its argument says.
import os, socket, sys, time

channel = socket.socket(fileno=int(os.environ['NODE_CHANNEL_FD']))
say = lambda line: os.write(1, line.encode() + b'\n')

def rubbish():
    for line in [b'', b'ready', b'{', b'\xff\xfe\x00', b'{"cmd":"NODE_"}', b'{"cmd":5,"type":{}}', b'[' * 60000,
                 b'"' + b'x' * 5_000_000 + b'"', b'{"type":"ready"']:
        channel.sendall(line + b'\n')

def flood(chunk):
    say('flooding')
    while True:
        channel.sendall(chunk)

what = sys.argv[1]
if what == 'rubbish':
    rubbish()
    say('rubbish sent')
    while not os.path.exists(sys.argv[2]):
        time.sleep(0.002)
    channel.sendall(b'"ready"\n')
elif what == 'endless':
    flood(b'x' * 65536)
elif what == 'chatter':
    flood(b'{"type":"ready"}\n' * 4096)
elif what == 'deaf':
    # Questions whose answers nobody reads, until there is no room for the answers.
    question = b'{"cmd":"NODE_SOCKET_GET_COUNT","key":"6::::0"}\n'
    channel.sendall(question * 4000)
    channel.sendall(b'"ready"\n')
while True:
    time.sleep(60)
