// A thread for each connection.
#include <pthread.h>
#include <stdint.h>

#include "server.h"

static void *serve(void *client) {
    answer((int)(intptr_t)client, getpid());
    return NULL;
}

int main(int count, char **arguments) {
    int listener = listen_on(arguments[count - 1]);
    for (;;) {
        pthread_t thread;
        int client = accept(listener, NULL, NULL);
        if (client >= 0 && pthread_create(&thread, NULL, serve, (void *)(intptr_t)client) == 0)
            pthread_detach(thread);
    }
}
