// Accepts by io_uring.
#include <errno.h>
#include <liburing.h>

#include "server.h"

int main(int count, char **arguments) {
    struct io_uring ring;
    struct io_uring_cqe *done;
    int listener = listen_on(arguments[count - 1]);
    errno = -io_uring_queue_init(8, &ring, 0);
    check(-errno, "io_uring_queue_init");
    for (;;) {
        io_uring_prep_accept(io_uring_get_sqe(&ring), listener, NULL, NULL, 0);
        if (io_uring_submit_and_wait(&ring, 1) < 0 || io_uring_wait_cqe(&ring, &done) < 0)
            return 1;
        int client = done->res;
        io_uring_cqe_seen(&ring, done);
        if (client >= 0)
            answer(client, getpid());
    }
}
