#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

// What an answer takes, in microseconds.
#ifndef PAUSE
#define PAUSE 0
#endif

static void check(int result, const char *what) {
    if (result < 0) {
        perror(what);
        exit(1);
    }
}

static int listen_on(const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    check(listener, "socket");
    check(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), "setsockopt");
    check(bind(listener, (struct sockaddr *)&address, sizeof address), "bind");
    check(listen(listener, 128), "listen");
    return listener;
}

static void answer(int client, int pid) {
    char request[4096], body[32], head[128];
    if (read(client, request, sizeof request) > 0) {
        if (PAUSE)
            usleep(PAUSE);
        int length = sprintf(body, "pid %d\n", pid);
        int size = sprintf(head, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", length, body);
        if (write(client, head, size) < size)
            perror("write");
    }
    close(client);
}
