// A process for each connection.
#include <signal.h>

#include "server.h"

int main(int count, char **arguments) {
    int listener = listen_on(arguments[count - 1]), server = getpid();
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0)
            continue;
        if (fork() == 0) {
            answer(client, server);
            return 0;
        }
        close(client);
    }
}
