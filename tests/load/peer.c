/* The bare peer of load.py's row `wire`: the bytes of a round over plain loopback sockets, and nothing else.
 *
 *   load_peer CLIENTS DOWN UP ROUNDS
 *
 * One process holds a connection and a thread for each of CLIENTS processes. In each round it sends the same DOWN bytes
 * to every one, which then sends UP bytes back, in calls of at most 1 MiB. What comes is kept whole, as whoever wants
 * to use it must, and nobody looks at it. Prints one JSON line: the seconds of each round, from before the first byte
 * is sent until the last has come. */
#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PIECE       ((size_t)1 << 20)
#define CLIENTS_MAX 64

static size_t clients, down, up, rounds;
static char *model;               /* [down]; all connections send it */
static pthread_barrier_t barrier; /* of the connections' threads */
static double *seconds;           /* [rounds] */

struct line { /* a connection, as its thread sees it */
    int fd;
    unsigned number;
    pthread_t thread;
};

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static size_t piece(size_t left)
{
    return left < PIECE ? left : PIECE;
}

static void send_all(int fd, const char *bytes, size_t count)
{
    for (size_t done = 0; done < count;) {
        ssize_t n = send(fd, bytes + done, piece(count - done), MSG_NOSIGNAL);
        if (n <= 0) {
            die("send");
        }
        done += (size_t)n;
    }
}

static void receive_all(int fd, char *bytes, size_t count)
{
    for (size_t done = 0; done < count;) {
        ssize_t n = recv(fd, bytes + done, piece(count - done), 0);
        if (n <= 0) {
            die("recv");
        }
        done += (size_t)n;
    }
}

/* Bytes that differ from page to page, so that each has memory of its own. */
static char *new_bytes(size_t count)
{
    char *bytes = malloc(count);
    if (!bytes) {
        die("memory");
    }
    for (size_t i = 0; i < count; i++) {
        bytes[i] = (char)(i * 2654435761u >> 13);
    }
    return bytes;
}

static void run_client(const struct sockaddr_in *address)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    char *received = new_bytes(down), *update = new_bytes(up);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)(const void *)address, sizeof *address)) {
        die("connect");
    }
    for (size_t i = 0; i < rounds; i++) {
        receive_all(fd, received, down);
        send_all(fd, update, up);
    }
    exit(0);
}

static void *run_line(void *ctx)
{
    const struct line *line = ctx;
    char *update = new_bytes(up);
    for (size_t i = 0; i < rounds; i++) {
        (void)pthread_barrier_wait(&barrier);
        double begin = now();
        send_all(line->fd, model, down);
        receive_all(line->fd, update, up);
        (void)pthread_barrier_wait(&barrier);
        if (line->number == 0) {
            seconds[i] = now() - begin;
        }
    }
    free(update);
    (void)close(line->fd);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 5 || (clients = strtoull(argv[1], NULL, 10)) == 0 || clients > CLIENTS_MAX ||
        (down = strtoull(argv[2], NULL, 10)) == 0 || (up = strtoull(argv[3], NULL, 10)) == 0 ||
        (rounds = strtoull(argv[4], NULL, 10)) == 0 || rounds > 1000000) {
        (void)fprintf(stderr, "usage: load_peer CLIENTS DOWN UP ROUNDS (at most %d clients)\n", CLIENTS_MAX);
        return 64;
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    seconds = calloc((size_t)rounds, sizeof *seconds);
    model = new_bytes(down);
    if (listener < 0 || !seconds || bind(listener, (struct sockaddr *)(void *)&address, len) ||
        listen(listener, CLIENTS_MAX) || getsockname(listener, (struct sockaddr *)(void *)&address, &len)) {
        die("listen");
    }
    for (unsigned i = 0; i < clients; i++) {
        pid_t child = fork();
        if (child < 0) {
            die("fork");
        }
        if (child == 0) {
            run_client(&address);
        }
    }
    struct line lines[CLIENTS_MAX];
    (void)pthread_barrier_init(&barrier, NULL, (unsigned)clients);
    for (unsigned i = 0; i < clients; i++) {
        lines[i] = (struct line){.fd = accept(listener, NULL, NULL), .number = i};
        if (lines[i].fd < 0 || pthread_create(&lines[i].thread, NULL, run_line, &lines[i])) {
            die("accept");
        }
    }
    for (unsigned i = 0; i < clients; i++) {
        (void)pthread_join(lines[i].thread, NULL);
    }
    while (wait(NULL) > 0) {
    }
    (void)printf("{\"seconds\": [");
    for (size_t i = 0; i < rounds; i++) {
        (void)printf("%s%.6f", i ? ", " : "", seconds[i]);
    }
    (void)printf("]}\n");
    free(seconds);
    free(model);
    (void)close(listener);
    return 0;
}
