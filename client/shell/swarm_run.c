/* The loop of a swarm. Few connections are opened at a time, and the first alone, so that what is wrong with the server
 * or its plan is said once. Any connection that is lost before the end is a failure. */
#include "client/shell/swarm_run.h"

#include "client/shell/passport.h"
#include "common/base/mem.h"
#include "common/base/random.h"
#include "common/net/conn.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#define OPENING_MAX        8 /* connections at a time that are not welcomed yet: fewer than a server's handshakes of TLS */
#define CONNECT_TIMEOUT_MS 30000
#define QUEUE_MAX_BYTES    ((size_t)8 << 20) /* a chunk or two, and small messages */
#define TICK_MS            100
#define LINGER_MS          2000
#define FILES_BESIDE       64   /* what a process holds beside its connections */
#define ADDRESS_CLIENTS    4096 /* connections from one loopback address */

struct client {
    struct run *run;
    struct conn *conn; /* NULL: none */
};

struct run {
    const struct swarm_run_options *options;
    struct swarm *swarm;
    struct client *clients; /* [swarm.clients + 1] */
    struct authority *authority;
    uint32_t count; /* without the observer */
    uint32_t begun, open;
    uint32_t told; /* rounds */
    uint64_t begun_us, welcomed_us;
    bool leaving; /* the clients' goodbyes are on their way */
    bool over;    /* everybody's */
    uv_loop_t loop;
    uv_timer_t timer;
    struct err err; /* code 0: nothing is wrong */
};

static const struct conn_events events;

static uint64_t now_us(void)
{
    return uv_hrtime() / 1000;
}

static uint32_t number_of(const struct client *client)
{
    return (uint32_t)(client - client->run->clients);
}

static void leave(struct run *run)
{
    run->leaving = true;
    for (uint32_t i = 0; i <= run->count; i++) {
        struct conn *conn = run->clients[i].conn;
        struct msg bye = {.type = MSG_BYE, .bye.code = (uint32_t)-run->err.code};
        if (conn) {
            (void)conn_send(conn, &bye, NULL);
            conn_close(conn, LINGER_MS);
        }
    }
}

static void fail(struct run *run, const struct err *err)
{
    if (run->err.code == 0) {
        run->err = *err;
    }
}

static int make_setup(struct run *run, uint32_t number, struct tls_setup **out, struct err *err)
{
    char name[NAME_MAX_BYTES];
    *out = NULL;
    (void)snprintf(name, sizeof name, "%s-%u", run->options->swarm.name, number);
    uint32_t role = number == run->count ? TRUST_OBSERVER : TRUST_TRAINER;
    return run->authority ? passport_mint(run->authority, name, role, out, err) : 0;
}

static void connect_client(struct run *run, uint32_t number)
{
    struct client *client = &run->clients[number];
    struct tls_setup *tls;
    struct err err;
    if (make_setup(run, number, &tls, &err)) {
        fail(run, &err);
        return;
    }
    const struct conn_options options = {
        .events = &events,
        .ctx = client,
        .limits = swarm_limits(run->swarm, number),
        .idle_timeout_ms = CONNECT_TIMEOUT_MS, /* until the server has told its own */
        .connect_timeout_ms = CONNECT_TIMEOUT_MS,
        .tls = tls,
        .queue_max_bytes = QUEUE_MAX_BYTES,
        .decode_budget = MSG_BUDGET_CLIENT,
        .loopback_source = 1 + number / ADDRESS_CLIENTS,
    };
    if (conn_connect(&run->loop, run->options->server, &options, &client->conn, &err)) {
        fail(run, &err);
    } else {
        run->open++;
    }
    tls_setup_free(tls);
}

/* ---- What follows from what has happened ---- */

static void connect_more(struct run *run)
{
    uint32_t welcomed = swarm_welcomed(run->swarm), most = welcomed ? welcomed + OPENING_MAX : 1;
    while (run->err.code == 0 && run->begun < run->count && run->begun < most) {
        connect_client(run, run->begun++);
    }
}

static void tell_welcomed(struct run *run)
{
    if (run->welcomed_us == 0 && swarm_welcomed(run->swarm) == run->count) {
        run->welcomed_us = now_us();
        if (run->options->on_welcomed) {
            run->options->on_welcomed(run->options->ctx, run->swarm, 1e-6 * (double)(run->welcomed_us - run->begun_us));
        }
    }
}

static void tell_rounds(struct run *run)
{
    uint32_t closed;
    const struct swarm_round *rounds = swarm_rounds(run->swarm, &closed);
    for (; run->told < closed; run->told++) {
        if (run->options->on_round) {
            run->options->on_round(run->options->ctx, run->swarm, &rounds[run->told]);
        }
    }
}

static bool is_over(const struct run *run)
{
    bool idled =
        run->options->swarm.idle && run->welcomed_us && now_us() - run->welcomed_us >= run->options->idle_ms * 1000;
    return run->err.code || idled || swarm_phase(run->swarm) == SWARM_DONE;
}

static void go_on(struct run *run)
{
    if (!run->leaving) {
        connect_more(run);
        tell_welcomed(run);
    }
    tell_rounds(run);
    bool over = is_over(run);
    if ((over && !run->over) || (swarm_phase(run->swarm) == SWARM_LEAVING && !run->leaving)) {
        run->over = over;
        leave(run);
    }
    if (run->open > 0) {
        return;
    }
    if (over && !uv_is_closing((uv_handle_t *)&run->timer)) {
        uv_close((uv_handle_t *)&run->timer, NULL);
    } else if (!over && swarm_phase(run->swarm) == SWARM_LEAVING) { /* all have gone: now the observer */
        connect_client(run, run->count);
    }
}

/* ---- Events ---- */

static void send_message(void *ctx, uint32_t number, struct msg *msg)
{
    struct run *run = ctx;
    struct conn *conn = run->clients[number].conn;
    struct err err;
    int rc = conn ? conn_send(conn, msg, &err) : 0;
    if (rc && rc != ERR_STATE) { /* ERR_STATE: the connection is on its way out, on_close will tell */
        fail(run, &err);
    }
}

static void on_open(void *ctx, struct conn *conn)
{
    struct client *client = ctx;
    struct err err;
    client->conn = conn;
    if (swarm_connected(client->run->swarm, number_of(client), now_us(), &err)) {
        fail(client->run, &err);
    }
    go_on(client->run);
}

static void on_message(void *ctx, struct conn *conn, const struct msg *msg)
{
    struct client *client = ctx;
    struct run *run = client->run;
    struct err err;
    if (run->err.code == 0 && swarm_message(run->swarm, number_of(client), msg, now_us(), &err)) {
        fail(run, &err);
    }
    if (msg->type == MSG_WELCOME) {
        conn_idle_timeout(conn, swarm_idle_timeout_ms(run->swarm));
    }
    conn_limit(conn, swarm_limits(run->swarm, number_of(client)));
    go_on(run);
}

static void on_drained(void *ctx, struct conn *conn)
{
    (void)conn;
    struct client *client = ctx;
    swarm_drained(client->run->swarm, number_of(client));
    go_on(client->run);
}

static void on_close(void *ctx, struct conn *conn, const struct err *reason)
{
    (void)conn;
    struct client *client = ctx;
    struct run *run = client->run;
    bool in_order = run->leaving && (number_of(client) < run->count || is_over(run));
    client->conn = NULL;
    run->open--;
    if (!in_order) {
        struct err err;
        (void)err_set(&err, reason->code ? reason->code : ERR_UNAVAILABLE, "%s-%u: %s", run->options->swarm.name,
                      number_of(client), reason->text);
        fail(run, &err);
    }
    go_on(run);
}

static const struct conn_events events = {on_open, on_message, on_drained, on_close};

static void on_tick(uv_timer_t *timer)
{
    struct run *run = timer->data;
    if (run->err.code == 0) {
        swarm_beat(run->swarm, now_us());
    }
    go_on(run);
}

/* ---- Start ---- */

static int raise_files(uint32_t clients, struct err *err)
{
    struct rlimit files;
    rlim_t needed = (rlim_t)clients + FILES_BESIDE;
    if (getrlimit(RLIMIT_NOFILE, &files)) {
        return err_set(err, ERR_FAILED, "cannot ask for the limit of open files: %s", strerror(errno));
    }
    if (files.rlim_cur >= needed) {
        return 0;
    }
    if (files.rlim_max < needed) {
        return err_set(err, ERR_LIMIT,
                       "%u clients need %llu open files, and this process may have %llu; raise the hard limit (ulimit "
                       "-Hn, LimitNOFILE= of systemd) or take fewer clients",
                       clients, (unsigned long long)needed, (unsigned long long)files.rlim_max);
    }
    files.rlim_cur = needed;
    if (setrlimit(RLIMIT_NOFILE, &files)) {
        return err_set(err, ERR_LIMIT, "cannot raise the limit of open files to %llu: %s", (unsigned long long)needed,
                       strerror(errno));
    }
    return 0;
}

static int serve(struct run *run, struct err *err)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
    int rc = uv_loop_init(&run->loop);
    if (rc) {
        return err_set(err, ERR_FAILED, "cannot make an event loop: %s", uv_strerror(rc));
    }
    (void)uv_timer_init(&run->loop, &run->timer);
    run->timer.data = run;
    (void)uv_timer_start(&run->timer, on_tick, 0, TICK_MS); /* its first tick connects */
    (void)sigaction(SIGPIPE, &ignore, &before);
    run->begun_us = now_us();
    (void)uv_run(&run->loop, UV_RUN_DEFAULT);
    (void)sigaction(SIGPIPE, &before, NULL);
    (void)uv_loop_close(&run->loop);
    if (run->err.code && err) {
        *err = run->err;
    }
    return run->err.code;
}

int swarm_run(const struct swarm_run_options *options, struct swarm **out, struct err *err)
{
    struct run run = {.options = options, .count = options->swarm.clients};
    struct swarm_options wanted = options->swarm;
    *out = NULL;
    int rc = random_bytes(&wanted.instance, sizeof wanted.instance, err);
    rc = rc ? rc : raise_files(run.count, err);
    rc = rc == 0 && options->trust ? authority_open(options->trust, &run.authority, err) : rc;
    if (rc) {
        return rc;
    }
    wanted.send = send_message;
    wanted.ctx = &run;
    run.clients = mem_new((size_t)run.count + 1, sizeof *run.clients);
    if (!run.clients || swarm_new(&wanted, &run.swarm)) {
        mem_free(run.clients);
        authority_close(run.authority);
        return err_set(err, ERR_NOMEM, "out of memory for %u clients", run.count);
    }
    for (uint32_t i = 0; i <= run.count; i++) {
        run.clients[i].run = &run;
    }
    rc = serve(&run, err);
    mem_free(run.clients);
    authority_close(run.authority);
    *out = run.swarm;
    return rc;
}
