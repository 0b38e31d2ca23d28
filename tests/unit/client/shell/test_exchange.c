/* A conversation that does not come about: who says nothing is told from nobody, with TLS and without, and a signal
 * ends it, the second one at once even while a name is looked up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first. */
#include <cmocka.h>

#include "client/shell/exchange.h"
#include "tests/support/tls_world.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define TIMEOUT_MS 300
#define HANGS_MS   5000

static int lookup[2] = {-1, -1}, release[2]; /* pipes: a lookup has begun; it may end */

/* In the place of the system's; slow once the pipes are there. */
int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **out)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    if (lookup[0] >= 0) {
        struct pollfd end = {.fd = release[0], .events = POLLIN};
        (void)!write(lookup[1], "", 1);
        (void)poll(&end, 1, HANGS_MS);
        return EAI_AGAIN;
    }
    return real(host, port, hints, out);
}

static int say(void *ctx, struct conn *conn, struct err *err)
{
    (void)ctx;
    struct msg msg = {.type = MSG_STATUS};
    return conn_send(conn, &msg, err);
}

static int hear(void *ctx, struct conn *conn, const struct msg *msg, struct err *err)
{
    (void)ctx, (void)conn, (void)msg;
    return err_set(err, ERR_PROTOCOL, "nobody was to answer");
}

static int ask(const char *server, struct tls_setup *tls, struct err *err)
{
    const struct exchange exchange = {
        .server = server, .tls = tls, .timeout_ms = TIMEOUT_MS, .stoppable = true, .open = say, .message = hear};
    return exchange_run(&exchange, err);
}

/* A socket that nobody serves: the kernel takes connections for it, `backlog` and one. */
static int listen_silently(int backlog, struct sockaddr_in *at, char address[32])
{
    socklen_t len = sizeof *at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    *at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(bind(fd, (struct sockaddr *)at, len), 0);
    assert_int_equal(listen(fd, backlog), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)at, &len), 0);
    (void)snprintf(address, 32, "127.0.0.1:%d", ntohs(at->sin_port));
    return fd;
}

static void who_is_silent_is_there(void **state)
{
    (void)state;
    struct tls_world world;
    struct sockaddr_in at;
    struct err err;
    char address[32];
    int fd = listen_silently(8, &at, address);
    tls_world_init(&world);
    struct tls_setup *setup = tls_joining(world.pin);
    assert_int_equal(ask(address, setup, &err), ERR_TEMPFAIL);
    assert_non_null(strstr(err.text, ": no whole TLS handshake within 300 ms; somebody is there"));
    assert_int_equal(ask(address, NULL, &err), ERR_TEMPFAIL);
    assert_non_null(strstr(err.text, ": no answer within 300 ms; somebody is there"));
    tls_setup_free(setup);
    tls_world_fini(&world);
    (void)close(fd);
}

static void who_cannot_be_reached_is_not(void **state)
{
    (void)state;
    struct sockaddr_in at;
    struct err err;
    char address[32];
    int fd = listen_silently(0, &at, address), full[8];
    assert_int_equal(ask("127.0.0.1:1", NULL, &err), ERR_UNAVAILABLE);
    assert_non_null(strstr(err.text, "; does the server run"));
    for (size_t i = 0; i < 8; i++) { /* from then on it drops what comes, as a firewall does */
        full[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(full[i], (struct sockaddr *)&at, sizeof at);
    }
    assert_int_equal(ask(address, NULL, &err), ERR_UNAVAILABLE);
    assert_non_null(strstr(err.text, ": no connection within 300 ms; does the server run"));
    for (size_t i = 0; i < 8; i++) {
        (void)close(full[i]);
    }
    (void)close(fd);
}

/* A process that looks up a name, which hangs. */
static pid_t hang(void)
{
    char begun;
    assert_int_equal(pipe(lookup) || pipe(release), 0);
    pid_t child = fork();
    if (child == 0) {
        _exit(ask("a-name.example:1", NULL, NULL) == ERR_CANCELLED ? 42 : 43);
    }
    assert_int_equal(read(lookup[0], &begun, 1), 1);
    return child;
}

static int ended(int status)
{
    (void)close(lookup[0]), (void)close(lookup[1]), (void)close(release[0]), (void)close(release[1]);
    lookup[0] = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* In the attempt, and when that has failed already. */
static void a_signal_ends_it(void **state)
{
    (void)state;
    for (int late = 0; late < 2; late++) {
        int status = 0;
        pid_t child = hang();
        (void)usleep(late ? 2000 * TIMEOUT_MS : 0);
        assert_int_equal(kill(child, SIGTERM), 0);
        (void)usleep(300000); /* until it has heard of it */
        assert_int_equal(write(release[1], "", 1), 1);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(ended(status), 42);
    }
}

static void a_second_signal_waits_for_nothing(void **state)
{
    (void)state;
    int status = 0;
    pid_t child = hang();
    for (int i = 0; i < HANGS_MS / 50 && waitpid(child, &status, WNOHANG) == 0; i++) {
        assert_int_equal(kill(child, SIGTERM), 0);
        (void)usleep(100000);
    }
    assert_int_equal(ended(status), 1);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_silent_is_there),
        cmocka_unit_test(who_cannot_be_reached_is_not),
        cmocka_unit_test(a_signal_ends_it),
        cmocka_unit_test(a_second_signal_waits_for_nothing),
    };
    (void)alarm(60);
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
