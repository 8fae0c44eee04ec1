//! The rows.

use super::row::{Mode, Protocol, Row, Socket};

/// Runs a trial on each row, as a test by the row's name.
#[macro_export]
macro_rules! on_each_server {
    ($trial:path) => {
        $crate::on_each_server! { $trial:
            node, express, node_cluster,
            python_http_server, gunicorn_inherits, gunicorn_binds, uvicorn_inherits, uvicorn_binds, aiohttp,
            nginx, java_http_server,
            php_built_in, php_fpm_inherits, php_fpm_binds,
            webrick, puma_inherits, puma_binds,
            c_static, c_forking, c_io_uring, rust_threads
        }
    };
    ($trial:path: $($server:ident),*) => {
        $(#[test]
        fn $server() {
            $trial(&$crate::matrix::servers::$server());
        })*
    };
}

pub const PLAIN: Row = Row {
    name: "",
    needs: "",
    files: "",
    build: "",
    command: "",
    socket: Socket::Adopted,
    speaks: Protocol::Http("/"),
    stop: "TERM",
    modes: &[Mode::Shared, Mode::PerWorker, Mode::Sticky],
    drops_root: false,
    in_container: Ok(()),
};

pub fn node() -> Row {
    Row {
        name: "Node.js http",
        needs: "/usr/bin/node",
        files: "server.js",
        command: "/usr/bin/node {dir}/server.js {port}",
        ..PLAIN
    }
}

pub fn express() -> Row {
    Row {
        name: "Express",
        needs: "/usr/bin/node /usr/share/nodejs/express",
        files: "express.js",
        command: "/usr/bin/env NODE_PATH=/usr/share/nodejs /usr/bin/node {dir}/express.js {port}",
        ..PLAIN
    }
}

pub fn node_cluster() -> Row {
    Row {
        name: "Node.js cluster as a worker",
        needs: "/usr/bin/node",
        files: "cluster.js server.js",
        command: "/usr/bin/node {dir}/cluster.js {port}",
        ..PLAIN
    }
}

pub fn python_http_server() -> Row {
    Row {
        name: "Python http.server",
        needs: "/usr/bin/python3",
        files: "http_server.py index.html",
        command: "/usr/bin/python3 {dir}/http_server.py {port}",
        ..PLAIN
    }
}

pub fn gunicorn_inherits() -> Row {
    Row {
        name: "gunicorn, by LISTEN_FDS",
        needs: "/usr/bin/gunicorn",
        files: "wsgi.py",
        command: "/usr/bin/gunicorn --chdir {dir} --workers 2 --graceful-timeout 3 --worker-tmp-dir {tmp} wsgi:app",
        socket: Socket::Inherited,
        ..PLAIN
    }
}

pub fn gunicorn_binds() -> Row {
    Row {
        name: "gunicorn, by its own bind",
        needs: "/usr/bin/gunicorn",
        files: "wsgi.py",
        command: "/usr/bin/env --unset=LISTEN_FDS /usr/bin/gunicorn --chdir {dir} --workers 2 --graceful-timeout 3 --worker-tmp-dir {tmp} \
 --bind 0.0.0.0:{port} wsgi:app",
        ..PLAIN
    }
}

pub fn uvicorn_inherits() -> Row {
    Row {
        name: "uvicorn, by --fd",
        needs: "/usr/bin/uvicorn",
        files: "asgi.py",
        command: "/usr/bin/uvicorn --app-dir {dir} --fd {fd} asgi:app",
        socket: Socket::Inherited,
        ..PLAIN
    }
}

pub fn uvicorn_binds() -> Row {
    Row {
        name: "uvicorn, by its own bind",
        needs: "/usr/bin/uvicorn",
        files: "asgi.py",
        command: "/usr/bin/uvicorn --app-dir {dir} --host 0.0.0.0 --port {port} asgi:app",
        ..PLAIN
    }
}

pub fn aiohttp() -> Row {
    Row {
        name: "aiohttp",
        needs: "/usr/bin/python3 /usr/lib/python3/dist-packages/aiohttp",
        files: "aiohttp_server.py",
        command: "/usr/bin/python3 {dir}/aiohttp_server.py {port}",
        ..PLAIN
    }
}

pub fn nginx() -> Row {
    Row {
        name: "nginx",
        needs: "/usr/sbin/nginx",
        files: "nginx.conf index.html",
        command: "/usr/sbin/nginx -c {dir}/nginx.conf -e stderr",
        stop: "QUIT",
        drops_root: true,
        ..PLAIN
    }
}

pub fn java_http_server() -> Row {
    Row {
        name: "Java's HttpServer",
        needs: "/usr/bin/java javac",
        files: "Server.java",
        build: "javac -d {dir} {dir}/Server.java",
        command: "/usr/bin/java -cp {dir} Server {port}",
        ..PLAIN
    }
}

pub fn php_built_in() -> Row {
    Row {
        name: "PHP's built-in server",
        needs: "/usr/bin/php",
        files: "index.php",
        command: "/usr/bin/php -S 0.0.0.0:{port} -t {dir}",
        ..PLAIN
    }
}

/// Debian has it under the name of its version only.
const LINK_FPM: &str = "sh -c 'ln -s $(ls /usr/sbin/php-fpm* | tail -n 1) {dir}/php-fpm'";

pub fn php_fpm_inherits() -> Row {
    Row {
        name: "PHP-FPM, by FPM_SOCKETS",
        needs: "/usr/sbin/php-fpm*",
        files: "php-fpm.conf index.php",
        build: LINK_FPM,
        command: "{dir}/php-fpm --nodaemonize --fpm-config {dir}/php-fpm.conf",
        socket: Socket::Inherited,
        speaks: Protocol::FastCgi("{dir}/index.php"),
        stop: "QUIT",
        drops_root: true,
        ..PLAIN
    }
}

pub fn php_fpm_binds() -> Row {
    Row {
        name: "PHP-FPM, by its own bind",
        needs: "/usr/sbin/php-fpm*",
        files: "php-fpm.conf index.php",
        build: LINK_FPM,
        command: "/usr/bin/env --unset=FPM_SOCKETS {dir}/php-fpm --nodaemonize --fpm-config {dir}/php-fpm.conf",
        speaks: Protocol::FastCgi("{dir}/index.php"),
        stop: "QUIT",
        drops_root: true,
        ..PLAIN
    }
}

pub fn webrick() -> Row {
    Row {
        name: "WEBrick",
        needs: "/usr/bin/ruby /usr/share/rubygems-integration/all/gems/webrick*",
        files: "webrick.rb",
        command: "/usr/bin/ruby {dir}/webrick.rb {port}",
        ..PLAIN
    }
}

pub fn puma_inherits() -> Row {
    Row {
        name: "puma, by LISTEN_FDS",
        needs: "/usr/bin/puma",
        files: "config.ru",
        command: "/usr/bin/puma --bind-to-activated-sockets only {dir}/config.ru",
        socket: Socket::Inherited,
        ..PLAIN
    }
}

pub fn puma_binds() -> Row {
    Row {
        name: "puma, by its own bind",
        needs: "/usr/bin/puma",
        files: "config.ru",
        command: "/usr/bin/puma --port {port} {dir}/config.ru",
        ..PLAIN
    }
}

pub fn c_static() -> Row {
    Row {
        name: "a static C server",
        needs: "cc",
        files: "server.c server.h",
        build: "cc -O2 -static -o {dir}/server {dir}/server.c",
        command: "{dir}/server {port}",
        ..PLAIN
    }
}

pub fn c_forking() -> Row {
    Row {
        name: "a process for each connection",
        needs: "cc",
        files: "forks.c server.h",
        build: "cc -O2 -o {dir}/forks {dir}/forks.c",
        command: "{dir}/forks {port}",
        ..PLAIN
    }
}

pub fn c_io_uring() -> Row {
    Row {
        name: "accept by io_uring",
        needs: "cc /usr/include/liburing.h",
        files: "uring.c server.h",
        build: "cc -O2 -o {dir}/uring {dir}/uring.c -luring",
        command: "{dir}/uring {port}",
        in_container: Err("the default seccomp profile refuses io_uring"),
        ..PLAIN
    }
}

pub fn rust_threads() -> Row {
    Row {
        name: "a Rust server with threads",
        needs: "rustc",
        files: "server.rs",
        build: "rustc -O -o {dir}/server {dir}/server.rs",
        command: "{dir}/server {port}",
        ..PLAIN
    }
}
