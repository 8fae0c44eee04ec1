run ->(env) { [200, { 'Content-Type' => 'text/plain' }, ["pid #{Process.pid}\n"]] }
