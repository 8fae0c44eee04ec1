require 'webrick'

server = WEBrick::HTTPServer.new(Port: Integer(ARGV[0]), AccessLog: [])
server.mount_proc('/') { |request, response| response.body = "pid #{Process.pid}\n" }
trap('TERM') { server.shutdown }
server.start
