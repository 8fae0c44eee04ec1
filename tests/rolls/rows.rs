//! The servers that are rolled: as people write them, with pages that take their time.

use crate::matrix::row::{Row, Socket};
use crate::matrix::servers::PLAIN;

/// It has no thought of its end, and dies of SIGTERM.
pub fn node() -> Row {
    Row {
        name: "Node.js, unmodified",
        needs: "/usr/bin/node",
        files: "paths.js",
        command: "/usr/bin/node {dir}/paths.js {port}",
        ..PLAIN
    }
}

pub fn node_closing() -> Row {
    Row {
        name: "Node.js, server.close() on SIGTERM",
        needs: "/usr/bin/node",
        files: "paths.js paths_closing.js",
        command: "/usr/bin/node {dir}/paths_closing.js {port}",
        ..PLAIN
    }
}

/// It answers what comes while it ends with `Connection: close`.
pub fn node_gentle() -> Row {
    Row {
        name: "Node.js, Connection: close on SIGTERM",
        needs: "/usr/bin/node",
        files: "paths.js paths_gentle.js",
        command: "/usr/bin/node {dir}/paths_gentle.js {port}",
        ..PLAIN
    }
}

pub fn gunicorn_sync() -> Row {
    Row {
        name: "gunicorn, sync",
        needs: "/usr/bin/gunicorn",
        files: "paths_wsgi.py",
        command: "/usr/bin/gunicorn --chdir {dir} --worker-tmp-dir {tmp} paths_wsgi:app",
        socket: Socket::Inherited,
        ..PLAIN
    }
}

pub fn gunicorn_gthread() -> Row {
    Row {
        name: "gunicorn, gthread",
        command: "/usr/bin/gunicorn --chdir {dir} --worker-tmp-dir {tmp} --worker-class gthread --threads 64 paths_wsgi:app",
        ..gunicorn_sync()
    }
}

pub fn gunicorn_uvicorn() -> Row {
    Row {
        name: "gunicorn, uvicorn",
        needs: "/usr/bin/gunicorn /usr/lib/python3/dist-packages/uvicorn",
        files: "paths_asgi.py",
        command: "/usr/bin/gunicorn --chdir {dir} --worker-tmp-dir {tmp} --worker-class uvicorn.workers.UvicornWorker \
 paths_asgi:app",
        socket: Socket::Inherited,
        ..PLAIN
    }
}

pub fn uvicorn() -> Row {
    Row {
        name: "uvicorn",
        needs: "/usr/bin/uvicorn",
        files: "paths_asgi.py",
        command: "/usr/bin/uvicorn --app-dir {dir} --host 0.0.0.0 --port {port} --no-access-log paths_asgi:app",
        ..PLAIN
    }
}

/// Answers take 50 ms.
pub fn python_module() -> Row {
    Row {
        name: "python3 -m http.server",
        needs: "/usr/bin/python3",
        files: "module.py index.html",
        command: "/usr/bin/python3 {dir}/module.py {port}",
        ..PLAIN
    }
}

pub fn c_forking() -> Row {
    Row {
        name: "C, a process for each connection",
        needs: "cc",
        files: "forks.c server.h",
        build: "cc -O2 -DPAUSE=50000 -o {dir}/forks {dir}/forks.c",
        command: "{dir}/forks {port}",
        ..PLAIN
    }
}

pub fn c_threads() -> Row {
    Row {
        name: "C, a thread for each connection",
        needs: "cc",
        files: "threads.c server.h",
        build: "cc -O2 -pthread -DPAUSE=50000 -o {dir}/threads {dir}/threads.c",
        command: "{dir}/threads {port}",
        ..PLAIN
    }
}

pub fn websocket() -> Row {
    Row {
        name: "Node.js, ws",
        needs: "/usr/bin/node /usr/share/nodejs/ws",
        files: "chat.js",
        command: "/usr/bin/env NODE_PATH=/usr/share/nodejs /usr/bin/node {dir}/chat.js {port}",
        ..PLAIN
    }
}
