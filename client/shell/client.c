/* The client daemon: one loop with one connection at a time, and the trainer thread (worker.c).
 *
 * Everything that happens becomes an event of the session (client/session), whose actions are carried out here. What
 * could be wrong with this site alone (folder, state) is looked at before anybody is called. */
#include "client/shell/client.h"

#include "client/nn/net_plan.h"

#include "client/session/session.h"
#include "client/shell/identify.h"
#include "client/shell/state.h"
#include "client/shell/worker.h"
#include "common/base/mem.h"
#include "common/base/random.h"
#include "common/net/conn.h"
#include "common/net/ticker.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define QUEUE_MAX_BYTES ((size_t)8 << 20) /* a chunk or two, and small messages */

struct client {
    const struct client_options *options;
    const struct log *log;
    struct state state;
    struct passport passport;
    bool welcomed; /* on this connection */
    struct session *session;
    struct session_actions actions;
    struct worker *worker;

    uv_loop_t loop;
    struct ticker ticker;
    uv_signal_t terminate, interrupt;
    struct conn *conn; /* NULL: none */
    uint64_t bytes_in; /* of conn, that the session has heard of */
    bool refused;      /* connecting failed before there was a connection: `refusal` waits to be told */
    struct err refusal;
    bool stopping; /* a signal came */
    bool leaving;  /* the loop is on its way out */
    struct err result;
};

static uint64_t linger_ms(const struct client *client)
{
    return conn_linger_ms(session_idle_timeout_ms(client->session));
}

/* The table of time-outs stands in proto/PROTOCOL.md. */
static uint64_t connect_ms(const struct client *client)
{
    uint64_t wanted = session_idle_timeout_ms(client->session) / 6;
    return wanted > 2000 ? wanted : 2000;
}

static void leave(struct client *client, const struct err *reason)
{
    if (client->leaving) {
        return;
    }
    client->leaving = true;
    client->result = *reason;
    ticker_set(&client->ticker, UINT64_MAX);
    worker_stop(client->worker);
    if (client->conn) {
        conn_close(client->conn, linger_ms(client));
    }
}

static void leave_for_memory(struct client *client)
{
    struct err err;
    (void)err_set(&err, ERR_NOMEM, "out of memory");
    leave(client, &err);
}

/* ---- Events and actions ---- */

static const struct conn_events conn_events;

static void connect_server(struct client *client)
{
    const struct conn_options options = {
        .events = &conn_events,
        .ctx = client,
        .limits = session_limits(client->session),
        .idle_timeout_ms = 0, /* the session judges silence */
        .connect_timeout_ms = connect_ms(client),
        .tls = client->passport.setup,
        .queue_max_bytes = QUEUE_MAX_BYTES,
        .decode_budget = MSG_BUDGET_CLIENT,
    };
    client->bytes_in = 0;
    client->refused =
        conn_connect(&client->loop, client->options->server, &options, &client->conn, &client->refusal) != 0;
}

static void send_message(struct client *client, struct msg *msg)
{
    struct err err;
    int rc = client->conn ? conn_send(client->conn, msg, &err) : 0;
    if (rc && rc != ERR_STATE) { /* ERR_STATE: the connection is on its way out, on_close will tell */
        log_event(client->log, LOG_LEVEL_WARN, "send_failed", "reason=\"%s\"", err.text);
        conn_close(client->conn, 0);
    }
}

static int carry_out(struct client *client, struct session_action *action)
{
    int rc = 0;
    switch (action->kind) {
    case SESSION_CONNECT:
        connect_server(client);
        break;
    case SESSION_SEND:
        send_message(client, &action->message);
        break;
    case SESSION_CLOSE:
        if (client->conn) {
            conn_close(client->conn, linger_ms(client));
        }
        break;
    case SESSION_PREPARE:
        rc = worker_prepare(client->worker, action->plan, action->layout, &action->run, &action->plan_hash);
        break;
    case SESSION_TRAIN:
        rc = worker_train(client->worker, action->round, action->model, action->remote, action->remote_rows);
        action->model = action->remote = NULL;
        break;
    case SESSION_EVALUATE:
        rc = worker_evaluate(client->worker, action->round, action->model);
        action->model = NULL;
        break;
    case SESSION_CANCEL:
        worker_cancel(client->worker);
        break;
    case SESSION_COMMIT:
        rc = worker_commit(client->worker, action->round);
        break;
    case SESSION_DROP:
        rc = worker_drop(client->worker, action->round);
        break;
    case SESSION_EXIT:
        leave(client, &action->reason);
        break;
    }
    return rc;
}

static void step(struct client *client, const struct session_event *event)
{
    int rc = session_step(client->session, event, net_now_ms(), &client->actions);
    for (size_t i = 0; i < client->actions.count && rc == 0; i++) {
        rc = carry_out(client, &client->actions.items[i]);
    }
    session_actions_clear(&client->actions);
    if (rc) {
        leave_for_memory(client);
    }
    if (client->conn) {
        conn_limit(client->conn, session_limits(client->session));
    }
}

/* ---- The certificate ---- */

static uint64_t renewal_due_ms(const struct client *client)
{
    int64_t next = passport_next(&client->passport), now = (int64_t)time(NULL);
    if (!client->welcomed || next == INT64_MAX) {
        return UINT64_MAX;
    }
    return net_now_ms() + (next > now ? (uint64_t)(next - now) * 1000 : 0);
}

static void renew_certificate(struct client *client)
{
    struct msg msg;
    struct err err;
    int rc = client->welcomed ? passport_renew(&client->passport, &msg, &err) : 0;
    if (rc == 1) {
        send_message(client, &msg);
    } else if (rc < 0) {
        log_event(client->log, LOG_LEVEL_WARN, "renewal_failed", "reason=\"%s\"", err.text);
    }
}

static void take_certificate(struct client *client, const struct msg_certificate *certificate)
{
    struct err err;
    if (passport_take(&client->passport, certificate, &err)) {
        log_event(client->log, LOG_LEVEL_WARN, "renewal_failed", "reason=\"%s\"", err.text);
        return;
    }
    log_event(client->log, LOG_LEVEL_INFO, "certificate_renewed", "valid_s=%lld",
              (long long)(client->passport.subject.not_after - (int64_t)time(NULL)));
}

static void tell(struct client *client, const struct session_event *event)
{
    step(client, event);
    while (client->refused) {
        struct err reason = client->refusal;
        client->refused = false;
        step(client, &(struct session_event){.kind = SESSION_CLOSED, .reason = &reason});
    }
    if (!client->leaving) {
        uint64_t session_ms = session_next_ms(client->session), renewal_ms = renewal_due_ms(client);
        ticker_set(&client->ticker, session_ms < renewal_ms ? session_ms : renewal_ms);
    }
}

static void on_tick(void *ctx)
{
    struct client *client = ctx;
    struct session_event progress;
    if (client->leaving) {
        return;
    }
    renew_certificate(client);
    if (worker_progress(client->worker, &progress)) {
        step(client, &progress);
    }
    if (client->conn && conn_bytes_in(client->conn) != client->bytes_in &&
        !conn_is_stuck(client->conn, session_idle_timeout_ms(client->session))) {
        client->bytes_in = conn_bytes_in(client->conn);
        step(client, &(struct session_event){.kind = SESSION_HEARD});
    }
    tell(client, &(struct session_event){.kind = SESSION_TICK});
}

static void on_open(void *ctx, struct conn *conn)
{
    (void)conn;
    tell(ctx, &(struct session_event){.kind = SESSION_CONNECTED});
}

static void on_message(void *ctx, struct conn *conn, const struct msg *msg)
{
    (void)conn;
    struct client *client = ctx;
    client->welcomed |= msg->type == MSG_WELCOME;
    if (msg->type == MSG_CERTIFICATE) {
        take_certificate(client, &msg->certificate);
    } else {
        tell(client, &(struct session_event){.kind = SESSION_MESSAGE, .message = msg});
    }
}

static void on_drained(void *ctx, struct conn *conn)
{
    (void)conn;
    tell(ctx, &(struct session_event){.kind = SESSION_DRAINED});
}

static void on_close(void *ctx, struct conn *conn, const struct err *reason)
{
    (void)conn;
    struct client *client = ctx;
    client->conn = NULL;
    client->welcomed = false;
    tell(client, &(struct session_event){.kind = SESSION_CLOSED, .reason = reason});
}

static const struct conn_events conn_events = {on_open, on_message, on_drained, on_close};

static void on_prepared(void *ctx, uint64_t images)
{
    tell(ctx, &(struct session_event){.kind = SESSION_PREPARED, .images = images});
}

static void on_trained(void *ctx, struct contribution *contribution)
{
    tell(ctx, &(struct session_event){.kind = SESSION_TRAINED, .contribution = contribution});
}

static void on_evaluated(void *ctx, double knn_top1)
{
    tell(ctx, &(struct session_event){.kind = SESSION_EVALUATED, .knn_top1 = knn_top1});
}

static void on_failed(void *ctx, const struct err *reason)
{
    tell(ctx, &(struct session_event){.kind = SESSION_WORK_FAILED, .reason = reason});
}

/* The first signal asks; the second does not wait for the trainer's step or the disk. What counts is on disk. */
static void on_signal(uv_signal_t *handle, int number)
{
    struct client *client = handle->data;
    if (client->stopping) {
        log_event(client->log, LOG_LEVEL_WARN, "killed", "number=%d", number);
        _exit(1);
    }
    client->stopping = true;
    log_event(client->log, LOG_LEVEL_INFO, "signal", "number=%d", number);
    if (!client->leaving) {
        tell(client, &(struct session_event){.kind = SESSION_STOP});
    }
}

/* ---- Start ---- */

/* So that a wrong path is heard of at once and not after the server has been found. */
static int check_folder(const char *key, const char *path, struct err *err)
{
    DIR *folder = opendir(path);
    if (!folder) {
        return err_set(err, ERR_DATA, "%s: %s: %s", path, key, strerror(errno));
    }
    bool empty = true;
    for (struct dirent *entry = readdir(folder); entry && empty; entry = readdir(folder)) {
        empty = entry->d_name[0] == '.';
    }
    (void)closedir(folder);
    return empty ? err_set(err, ERR_DATA, "%s: %s: the folder is empty", path, key) : 0;
}

static int check_folders(const struct client_options *options, struct err *err)
{
    if (options->role == CLIENT_TRAINER) {
        return check_folder("images", options->images, err);
    }
    int rc = check_folder("train", options->train, err);
    return rc ? rc : check_folder("test", options->test, err);
}

static uint32_t processors(void)
{
    cpu_set_t set;
    int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return count < 1 ? 1 : count > 256 ? 256 : (uint32_t)count;
}

int client_check(const struct client_options *options, struct err *err)
{
    char host[256], port[8];
    int rc = options->server[0] ? net_split_address(options->server, host, port, err) : 0;
    if (rc) {
        (void)err_prefix(err, "server");
        if (err) {
            err->code = ERR_CONFIG;
        }
        return ERR_CONFIG;
    }
    bool observes = options->role == CLIENT_OBSERVER;
    if (observes && (!options->train[0] || !options->test[0])) {
        return err_set(
            err, ERR_CONFIG,
            "train and test: an observer needs both folders of labelled images; --train DIR and --test DIR do");
    }
    if (!observes && !options->images[0]) {
        return err_set(err, ERR_CONFIG, "images: the folder of this site's images is not set; --images DIR does");
    }
    if (options->name[0] && !name_is_valid(options->name)) {
        return err_set(err, ERR_CONFIG, "name: \"%s\" is not 1 to 64 characters of A-Z a-z 0-9 . _ -", options->name);
    }
    if (options->compute.backend == COMPUTE_OPENBLAS && options->compute.precision == COMPUTE_BF16) {
        return err_set(err, ERR_CONFIG, "compute.precision: bf16 needs compute.backend: onednn or auto");
    }
    return 0;
}

static int make_session(struct client *client, struct contribution *pending, struct err *err)
{
    struct session_options options = {
        .instance = client->state.instance,
        .role = client->options->role == CLIENT_OBSERVER ? ROLE_OBSERVER : ROLE_TRAINER,
        .stay = client->options->stay,
        .withholds = client->options->role == CLIENT_TRAINER && !client->options->share_features,
        .has_saved = client->state.has_kept,
        .saved_run = client->state.kept.run,
        .saved_plan = client->state.kept.plan_hash,
        .saved_round = client->state.kept.round,
        .pending = pending,
        .log = client->log,
    };
    (void)snprintf(options.name, sizeof options.name, "%s", client->options->name);
    int rc = random_bytes(&options.seed, sizeof options.seed, err); /* only spreads out reconnects */
    rc = rc ? rc : session_new(&options, net_now_ms(), &client->session, err);
    if (rc) {
        contribution_free(pending);
    }
    return rc;
}

static int watch_signal(struct client *client, uv_signal_t *handle, int number)
{
    int rc = uv_signal_init(&client->loop, handle);
    if (rc == 0) {
        handle->data = client;
        rc = uv_signal_start(handle, on_signal, number);
        uv_unref((uv_handle_t *)handle); /* the worker keeps the loop alive */
    }
    return rc;
}

static int serve(struct client *client, struct err *err)
{
    const struct worker_events events = {
        .prepared = on_prepared, .trained = on_trained, .evaluated = on_evaluated, .failed = on_failed, .ctx = client};
    int rc = uv_loop_init(&client->loop);
    if (rc) {
        return err_set(err, ERR_FAILED, "cannot make an event loop: %s", uv_strerror(rc));
    }
    rc = ticker_init(&client->loop, &client->ticker, on_tick, client);
    rc = rc ? rc : watch_signal(client, &client->terminate, SIGTERM);
    rc = rc ? rc : watch_signal(client, &client->interrupt, SIGINT);
    rc = rc ? err_set(err, ERR_FAILED, "cannot watch signals: %s", uv_strerror(rc))
            : worker_start(&client->loop, client->options, &client->state, &events, client->log, &client->worker, err);
    if (rc == 0) {
        ticker_set(&client->ticker, session_next_ms(client->session));
        (void)uv_run(&client->loop, UV_RUN_DEFAULT);
        worker_join(client->worker);
        rc = client->result.code;
        if (rc && err) {
            *err = client->result;
        }
    }
    ticker_close(&client->ticker);
    uv_close((uv_handle_t *)&client->terminate, NULL);
    uv_close((uv_handle_t *)&client->interrupt, NULL);
    (void)uv_run(&client->loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&client->loop);
    return rc;
}

int client_run(const struct client_options *given, const struct log *log, struct err *err)
{
    struct client_options options;
    struct client client = {.options = &options, .log = log, .state.lock = -1};
    struct contribution *pending = NULL;
    int rc = client_check(given, err);
    rc = rc ? rc : check_folders(given, err);
    if (rc) {
        return rc;
    }
    struct token token = {0};
    rc = given->join ? passport_read_token(given->join, &token, err) : 0;
    if (rc) {
        return err_prefix(err, "--join");
    }
    if (token.address[0] && given->server[0]) { /* from here the server is reached by another address */
        (void)snprintf(token.address, sizeof token.address, "%s", given->server);
    }
    identify_folders(given, &token, &options);
    options.threads = options.threads ? options.threads : processors();
    rc = state_open(&client.state, &disk_posix, options.state, options.new_run, log, &pending, err);
    if (rc) {
        return rc;
    }
    bool trains = options.role == CLIENT_TRAINER;
    rc = identify(&client.passport, &token, &options, log, err);
    bool stopped = rc == ERR_CANCELLED;
    if (rc) {
        state_undo(&client.state);
    }
    if (stopped) {
        log_event(log, LOG_LEVEL_INFO, "done", "exit=0 reason=\"asked to stop while it joined\"");
    }
    rc = rc || !trains || options.reproducible ? rc : state_secret(&client.state, err);
    rc = rc || !options.new_run ? rc : state_forget(&client.state, err);
    if (rc == 0) {
        log_event(log, LOG_LEVEL_INFO, "started",
                  "name=%s role=%s server=%s tls=%s images=\"%s\" state=\"%s\" threads=%u round=%u pending=%u",
                  options.name, options.role == CLIENT_OBSERVER ? "observer" : "trainer", options.server,
                  client.passport.setup ? "yes" : "no", options.role == CLIENT_OBSERVER ? options.test : options.images,
                  options.state, options.threads, client.state.kept.round, client.state.pending_round);
    }
    if (rc == 0 && trains && options.reproducible) {
        log_event(
            log, LOG_LEVEL_WARN, "views_guessable",
            "reason=\"reproducible: whoever knows the plan and this site's name can make the views of an image as "
            "this site does, and find it among the features that it shares\"");
    }
    if (rc || !trains) { /* of an earlier life as a trainer */
        contribution_free(pending);
        pending = NULL;
    }
    rc = rc ? rc : make_session(&client, pending, err);
    rc = rc ? rc : serve(&client, err);
    session_actions_fini(&client.actions);
    session_free(client.session);
    passport_close(&client.passport);
    state_close(&client.state);
    return stopped ? 0 : rc;
}
