#include "server.h"

int main(int count, char **arguments) {
    int listener = listen_on(arguments[count - 1]);
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client >= 0)
            answer(client, getpid());
    }
}
