/* The coordinator daemon: start, loop, end.
 *
 * It opens the state, or makes the first one, before it listens: whoever reaches it finds a run that survives a crash.
 * From then on everything goes through daemon_event, on the loop's thread: one event into the coordinator, its actions
 * out into peers.c and jobs.c, and the ticker set to when the coordinator wants to be called at the latest. */
#include "server/shell/internal.h"

#include "common/base/mem.h"
#include "common/base/random.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

/* ---- Events and actions ---- */

static void carry_out(struct daemon *daemon, struct action *action)
{
    switch (action->kind) {
    case ACTION_SEND:
        peers_send(daemon, action->peer, &action->message);
        break;
    case ACTION_CLOSE:
        peers_close(daemon, action->peer);
        break;
    case ACTION_DROP:
        peers_drop(daemon, action->peer);
        break;
    case ACTION_SHAKE:
        peers_shake(daemon, action->peer);
        break;
    case ACTION_PAUSE:
        peers_pause(daemon, action->peer, action->pause_ms);
        break;
    case ACTION_JOB:
        if (jobs_push(daemon, action->job)) {
            log_event(daemon->log, LOG_LEVEL_ERROR, "failed", "reason=\"out of memory for a job\"");
            daemon_leave(daemon, ERR_NOMEM); /* the last durable state is the truth; a restart goes on from it */
        }
        break;
    case ACTION_EXIT:
        daemon_leave(daemon, action->result);
        break;
    }
}

void daemon_event(struct daemon *daemon, struct event *event)
{
    event->unix_ms = machine_unix_ms();
    if (coordinator_step(daemon->coordinator, event, net_now_ms(), &daemon->actions)) {
        log_event(daemon->log, LOG_LEVEL_ERROR, "out_of_memory", "peer=%u", event->peer);
        if (event->kind == EVENT_PEER_OPENED || event->kind == EVENT_PEER_MESSAGE ||
            event->kind == EVENT_PEER_DRAINED) {
            peers_close(daemon, event->peer);
        }
    }
    for (size_t i = 0; i < daemon->actions.count; i++) {
        carry_out(daemon, &daemon->actions.items[i]);
    }
    actions_clear(&daemon->actions);
    if (!daemon->leaving) {
        ticker_set(&daemon->ticker, coordinator_next_ms(daemon->coordinator));
    }
}

static void on_tick(void *ctx)
{
    struct daemon *daemon = ctx;
    if (!daemon->leaving) {
        daemon_event(daemon, &(struct event){.kind = EVENT_TICK});
    }
}

static bool on_connection(void *ctx, struct listener *listener)
{
    (void)listener;
    return peers_accept(ctx);
}

static void on_failure(void *ctx, const char *why)
{
    struct daemon *daemon = ctx;
    log_event(coordinator_log(daemon->coordinator, UINT32_MAX, "accept_failed"), LOG_LEVEL_WARN, "accept_failed",
              "reason=\"%s\"", why);
}

/* The first signal asks; the second does not wait for a job on the worker thread, nor for anything else. Everything
 * that was announced is on disk, so there is nothing to lose. */
static void on_signal(uv_signal_t *handle, int number)
{
    struct daemon *daemon = handle->data;
    if (daemon->stopping) {
        log_event(daemon->log, LOG_LEVEL_WARN, "killed", "number=%d", number);
        _exit(1);
    }
    daemon->stopping = true;
    log_event(daemon->log, LOG_LEVEL_INFO, "signal", "number=%d", number);
    if (!daemon->leaving) {
        daemon_event(daemon, &(struct event){.kind = EVENT_STOP});
    }
}

void daemon_leave(struct daemon *daemon, int result)
{
    if (daemon->leaving) {
        return;
    }
    daemon->leaving = true;
    daemon->result = result;
    ticker_set(&daemon->ticker, UINT64_MAX);
    listener_close(&daemon->listener, NULL);
    peers_close_all(daemon); /* the loop ends when the last connection has */
}

/* ---- Start ---- */

/* Checkpoint 0 of a new run: random weights by the plan's seed, a random run id. */
static int first_state(struct daemon *daemon, struct checkpoint *out, struct err *err)
{
    out->plan = mem_new(daemon->plan.len, 1);
    out->params = mem_new_aligned((size_t)daemon->layout->total, sizeof(float));
    if (!out->plan || !out->params) {
        return err_set(err, ERR_NOMEM, "out of memory for a model of %llu parameters",
                       (unsigned long long)daemon->layout->total);
    }
    memcpy(out->plan, daemon->plan.data, daemon->plan.len);
    out->plan_len = (uint32_t)daemon->plan.len;
    params_init(daemon->layout, daemon->options->plan.seed, out->params);
    int rc = random_bytes(&out->run, sizeof out->run, err);
    return rc ? rc : store_save(daemon->store, daemon->layout, out, err);
}

static int load_state(struct daemon *daemon, struct checkpoint *state, struct err *err)
{
    const struct server_options *options = daemon->options;
    bool found = false;
    int rc = store_load(daemon->store, daemon->layout, daemon->plan.data, (uint32_t)daemon->plan.len, options->new_run,
                        state, &found, err);
    if (rc == 0 && !found) {
        rc = first_state(daemon, state, err);
    }
    if (rc == 0) {
        char run[HASH_HEX], model[DISK_PATH_MAX];
        log_event(daemon->log, LOG_LEVEL_INFO, found ? "run_resumed" : "run_created",
                  "run=%s round=%u of=%u state=\"%s\" model=\"%s\"", hash_hex(&state->run, run), state->round,
                  options->plan.rounds, options->state,
                  store_model_path(daemon->store, state->round, model) ? "" : model);
    }
    return rc;
}

/* How many clients the limit on open files leaves room for; *room: connections, with those that are not welcomed yet.
 */
static uint32_t capacity(const struct daemon *daemon, uint32_t *room)
{
    uint32_t wanted = daemon->options->max_clients, strangers = daemon->options->strangers_max;
    uint64_t most = machine_files_most(), used = machine_files_open() + FILES_RESERVE;
    uint64_t left = most > used ? most - used : 1;
    *room = left < (uint64_t)wanted + strangers ? (uint32_t)left : wanted + strangers;
    uint32_t spare = *room > 2 * strangers ? strangers : *room / 4;
    uint32_t clients = *room - spare < wanted ? *room - spare : wanted;
    log_event(daemon->log, clients < wanted ? LOG_LEVEL_WARN : LOG_LEVEL_INFO, "capacity",
              "clients=%u max_clients=%u connections=%u open_files_most=%llu", clients, wanted, *room,
              (unsigned long long)most);
    return clients;
}

/* Half a handshake costs 44 KB: all of them together stay below a megabyte where strangers_max is 128. */
static uint32_t handshakes_max(uint32_t strangers)
{
    uint32_t most = strangers / 10;
    return most < 4 ? 4 : most > HANDSHAKES_MOST ? HANDSHAKES_MOST : most;
}

static int make_coordinator(struct daemon *daemon, const struct checkpoint *state, uint32_t clients, uint32_t strangers,
                            struct err *err)
{
    const struct server_options *options = daemon->options;
    struct coordinator_options wanted = {
        .plan = &options->plan,
        .plan_bytes = daemon->plan.data,
        .plan_len = (uint32_t)daemon->plan.len,
        .layout = daemon->layout,
        .upload_slots = options->upload_slots,
        .bank_capacity = options->bank.capacity,
        .sessions_max = clients,
        .strangers_max = strangers,
        .strangers_per_address = options->strangers_per_address,
        .handshakes_max = handshakes_max(strangers),
        .idle_timeout_ms = options->idle_timeout_ms,
        .upload_rate = options->upload_rate,
        .spool = spool_is_wanted(daemon) ? &daemon->spool : NULL,
        .log = daemon->log,
    };
    int rc = random_bytes(&wanted.boot, sizeof wanted.boot, err);
    struct round_summary *history = NULL;
    uint32_t count = 0;
    if (rc == 0) { /* without a history the run goes on all the same; why is in the log */
        if (state->round > 0) {
            (void)history_append(daemon->store, &state->summary, NULL); /* a crash may have come before it was */
        }
        (void)history_load(daemon->store, state->round, MSG_HISTORY_MAX, &history, &count, NULL);
        rc = coordinator_new(&wanted, state, history, count, net_now_ms(), &daemon->coordinator, err);
    }
    mem_free(history);
    return rc;
}

/* The run goes on, or begins. */
static int make_ready(struct daemon *daemon, struct err *err)
{
    struct checkpoint state = {0};
    uint32_t connections, clients = capacity(daemon, &connections), least = daemon->options->plan.min_clients;
    if (clients < least) {
        return err_set(err, ERR_CONFIG,
                       "the limit on open files leaves room for %u clients, and plan.min_clients is %u: no round could "
                       "ever open; raise the hard limit (ulimit -Hn, or LimitNOFILE= of systemd)",
                       clients, least);
    }
    int rc = load_state(daemon, &state, err);
    rc = rc ? rc : make_coordinator(daemon, &state, clients, connections > clients ? connections - clients : 1, err);
    checkpoint_fini(&state);
    if (rc == 0 && (rc = peers_init(daemon, connections)) != 0) {
        (void)err_set(err, rc, "out of memory for %u connections", connections);
    }
    return rc;
}

/* The address is also written into the state folder, for scripts that let the kernel choose the port. */
static int announce(struct daemon *daemon, struct err *err)
{
    const struct span parts[] = {{daemon->bound, strlen(daemon->bound)}, {"\n", 1}};
    if (disk_join(daemon->address_file, daemon->options->state, "address")) {
        return err_set(err, ERR_LIMIT, "%s: the path is too long", daemon->options->state);
    }
    int rc = disk_save(&disk_posix, daemon->address_file, parts, 2, err);
    if (rc == 0) {
        log_event(daemon->log, LOG_LEVEL_INFO, "listening", "address=%s", daemon->bound);
    }
    return rc;
}

/* The address is taken before a run is begun, so that a start that fails for it leaves none behind; who connects
 * meanwhile is answered once the loop turns. */
static int start_listening(struct daemon *daemon, struct err *err)
{
    daemon->listener.on_connection = on_connection;
    daemon->listener.on_failure = on_failure;
    daemon->listener.socket_bytes = (int)daemon->options->socket_buffer;
    daemon->listener.ctx = daemon;
    int rc = listener_open(&daemon->loop, daemon->options->listen, &daemon->listener, daemon->bound, err);
    if (rc) {
        return rc;
    }
    rc = guard_start(daemon, err);
    rc = rc ? rc : make_ready(daemon, err);
    rc = rc ? rc : announce(daemon, err);
    if (rc) {
        listener_close(&daemon->listener, NULL);
    }
    return rc;
}

static int watch_signal(struct daemon *daemon, uv_signal_t *handle, int number)
{
    int rc = uv_signal_init(&daemon->loop, handle);
    if (rc == 0) {
        handle->data = daemon;
        rc = uv_signal_start(handle, on_signal, number);
        uv_unref((uv_handle_t *)handle); /* the listener keeps the loop alive */
    }
    return rc;
}

/* From here on the loop has handles, which only a turn of the loop lets go of. */
static int serve(struct daemon *daemon, struct err *err)
{
    int rc = uv_loop_init(&daemon->loop);
    if (rc) {
        return err_set(err, ERR_FAILED, "cannot make an event loop: %s", uv_strerror(rc));
    }
    rc = ticker_init(&daemon->loop, &daemon->ticker, on_tick, daemon);
    rc = rc ? rc : watch_signal(daemon, &daemon->terminate, SIGTERM);
    rc = rc ? rc : watch_signal(daemon, &daemon->interrupt, SIGINT);
    rc = rc ? err_set(err, ERR_FAILED, "cannot watch signals: %s", uv_strerror(rc)) : start_listening(daemon, err);
    if (rc == 0) {
        ticker_set(&daemon->ticker, coordinator_next_ms(daemon->coordinator));
        (void)uv_run(&daemon->loop, UV_RUN_DEFAULT);
        rc = daemon->result;
        if (rc) {
            (void)err_set(err, rc, "stopped: %s", err_meaning(rc));
        }
        (void)disk_remove(&disk_posix, daemon->address_file, NULL);
    }
    ticker_close(&daemon->ticker);
    guard_stop(daemon);
    uv_close((uv_handle_t *)&daemon->terminate, NULL);
    uv_close((uv_handle_t *)&daemon->interrupt, NULL);
    (void)uv_run(&daemon->loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&daemon->loop);
    return rc;
}

/* By its text: another name for this machine may become another machine's. */
static bool is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0 || strcmp(host, "localhost") == 0;
}

int daemon_check(const struct server_options *options, struct err *err)
{
    char host[256], port[8];
    int rc = net_split_address(options->listen, host, port, err);
    if (rc) {
        (void)err_prefix(err, "listen");
        if (err) {
            err->code = ERR_CONFIG;
        }
        return ERR_CONFIG;
    }
    if (!options->trust[0] && !options->plain_beyond_loopback && !is_loopback(host)) {
        return err_set(err, ERR_CONFIG,
                       "listen: %s is reached from other machines, and without TLS anybody on the way can read and "
                       "change what is sent: make a CA (starling ca init --address HOST%s%s) and set trust to its "
                       "folder, or say plain_beyond_loopback: true",
                       options->listen, port[0] ? ":" : "", port);
    }
    if (options->max_clients < options->plan.min_clients) {
        return err_set(err, ERR_CONFIG, "max_clients: %u is less than plan.min_clients, %u: no round could ever open",
                       options->max_clients, options->plan.min_clients);
    }
    return plan_check(&options->plan, err);
}

int daemon_run(const struct server_options *options, const struct log *log, struct err *err)
{
    struct daemon daemon = {.options = options, .log = log};
    buf_init(&daemon.plan, MSG_PLAN_MAX);
    int rc = daemon_check(options, err);
    rc = rc ? rc : layout_new(&options->plan.model, &daemon.layout, err);
    if (rc == 0 && (rc = plan_encode(&options->plan, &daemon.plan)) != 0) {
        (void)err_set(err, rc, "the plan: %s", err_meaning(rc));
    }
    rc = rc ? rc : store_open(&disk_posix, options->state, options->keep_every, log, &daemon.store, err);
    rc = rc ? rc : spool_open(&disk_posix, options->state, spool_is_wanted(&daemon), &daemon.spool, err);
    rc = rc ? rc : serve(&daemon, err);
    if (rc == 0) {
        log_event(log, LOG_LEVEL_INFO, "stopped", "round=%u", coordinator_round(daemon.coordinator));
    }
    jobs_fini(&daemon);
    peers_fini(&daemon);
    actions_fini(&daemon.actions);
    guard_fini(&daemon);
    coordinator_free(daemon.coordinator);
    store_close(daemon.store);
    layout_free(daemon.layout);
    buf_fini(&daemon.plan);
    return rc;
}
