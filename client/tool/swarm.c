/* starling swarm: a server under the load of many clients, measured, and its every model compared with what it must be.
 */
#include "client/shell/memory.h"
#include "client/shell/passport.h"
#include "client/shell/query.h"
#include "client/shell/swarm_run.h"
#include "client/tool/cli.h"
#include "client/tool/human.h"
#include "client/tool/verbs.h"
#include "common/base/mem.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUERY_TIMEOUT_MS 120000 /* its server may still be letting thousands of connections go */
#define IDLE_SECONDS_MAX 604800
#define NO_ROWS          UINT32_MAX

struct show {
    bool json;
    uint32_t idle_seconds;
    double welcome_seconds;
};

struct medians {
    double seconds, mb_per_second, server_seconds;
};

/* From the first ROUND to the last ACCEPTED. */
static double round_seconds(const struct swarm_round *round)
{
    return 1e-6 * (double)(round->accepted_us - round->opened_us);
}

static double round_speed(const struct swarm_round *round)
{
    return 1e-6 * (double)(round->up + round->down) / round_seconds(round);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *values, uint32_t count)
{
    qsort(values, count, sizeof *values, compare_doubles);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

static int find_medians(const struct swarm *swarm, const struct msg_status_reply *server, struct medians *out)
{
    uint32_t count, history = 0;
    const struct swarm_round *rounds = swarm_rounds(swarm, &count);
    double *values = mem_new((size_t)count + server->history_count, sizeof *values);
    if (!values) {
        return ERR_NOMEM;
    }
    for (uint32_t i = 0; i < count; i++) {
        values[i] = round_seconds(&rounds[i]);
    }
    out->seconds = median(values, count);
    for (uint32_t i = 0; i < count; i++) {
        values[i] = round_speed(&rounds[i]);
    }
    out->mb_per_second = median(values, count);
    for (uint32_t i = 0; i < server->history_count; i++) {
        if (server->history[i].round >= rounds[0].round && server->history[i].round <= rounds[count - 1].round) {
            values[history++] = server->history[i].seconds;
        }
    }
    out->server_seconds = history ? median(values, history) : 0;
    mem_free(values);
    return 0;
}

/* ---- While it runs ---- */

static void show_welcomed(void *ctx, const struct swarm *swarm, double seconds)
{
    struct show *show = ctx;
    const struct layout *layout = swarm_layout(swarm);
    char clients[HUMAN_MAX], numbers[HUMAN_MAX], bytes[HUMAN_MAX];
    show->welcome_seconds = seconds;
    if (show->json) {
        return;
    }
    (void)printf("%s clients welcomed in %.2f s; a model is %s numbers, %s\n",
                 human_count(swarm_welcomed(swarm), clients), seconds, human_count(layout->total, numbers),
                 human_bytes(layout->total * sizeof(float), bytes));
    if (show->idle_seconds) {
        (void)printf("they answer heartbeats for %u s\n", show->idle_seconds);
    } else {
        (void)printf("\n  %5s %10s %8s %8s %9s %9s %9s %6s\n", "round", "seconds", "counted", "declined", "up", "down",
                     "MB/s", "slots");
    }
    (void)fflush(stdout);
}

static void show_round(void *ctx, const struct swarm *swarm, const struct swarm_round *round)
{
    const struct show *show = ctx;
    char up[HUMAN_MAX], down[HUMAN_MAX];
    (void)swarm;
    if (!show->json) {
        (void)printf("  %5u %10.4f %8u %8u %9s %9s %9.1f %6u\n", round->round, round_seconds(round), round->accepted,
                     round->declined, human_bytes(round->up, up), human_bytes(round->down, down), round_speed(round),
                     round->slots);
        (void)fflush(stdout);
    }
}

/* ---- At the end ---- */

static json_t *rounds_json(const struct swarm *swarm)
{
    uint32_t count;
    const struct swarm_round *rounds = swarm_rounds(swarm, &count);
    json_t *list = json_array();
    for (uint32_t i = 0; list && i < count; i++) {
        const struct swarm_round *round = &rounds[i];
        (void)json_array_append_new(
            list, json_pack("{s:I, s:o, s:I, s:I, s:I, s:I, s:o, s:I}", "round", (json_int_t)round->round, "seconds",
                            cli_number(round_seconds(round)), "accepted", (json_int_t)round->accepted, "declined",
                            (json_int_t)round->declined, "bytes_up", (json_int_t)round->up, "bytes_down",
                            (json_int_t)round->down, "mb_per_second", cli_number(round_speed(round)), "slots",
                            (json_int_t)round->slots));
    }
    return list;
}

static json_t *swarm_json(const struct show *show, const struct swarm *swarm, const struct medians *medians,
                          const struct msg_status_reply *server)
{
    bool idle = show->idle_seconds > 0;
    return json_pack("{s:I, s:f, s:I, s:I, s:o, s:o, s:o, s:I, s:I, s:{s:o, s:I, s:I}}", "clients",
                     (json_int_t)swarm_welcomed(swarm), "welcome_seconds", show->welcome_seconds, "model_bytes",
                     (json_int_t)(swarm_layout(swarm)->total * sizeof(float)), "models_compared",
                     (json_int_t)swarm_compared(swarm), "rounds", rounds_json(swarm), "seconds_median",
                     idle ? json_null() : cli_number(medians->seconds), "mb_per_second_median",
                     idle ? json_null() : cli_number(medians->mb_per_second), "heartbeats",
                     (json_int_t)swarm_beats(swarm), "peak_rss_bytes", (json_int_t)memory_peak(), "server",
                     "seconds_median", idle ? json_null() : cli_number(medians->server_seconds), "peak_rss_bytes",
                     (json_int_t)server->peak_rss_bytes, "bank_rows", (json_int_t)server->bank_rows);
}

static void show_end(const struct show *show, const struct swarm *swarm, const struct medians *medians,
                     const struct msg_status_reply *server)
{
    char ours[HUMAN_MAX], theirs[HUMAN_MAX], beats[HUMAN_MAX];
    if (show->idle_seconds) {
        (void)printf("%s heartbeats of the server came\n", human_count(swarm_beats(swarm), beats));
    } else {
        (void)printf("\nmedian round %.4f s from ROUND to the last ACCEPTED, %.1f MB/s; by the server's clock %.4f s "
                     "with aggregation\n",
                     medians->seconds, medians->mb_per_second, medians->server_seconds);
        (void)printf("%u models were compared with what they must be: the same, bit for bit\n", swarm_compared(swarm));
    }
    (void)printf("peak memory: server %s, swarm %s\n", human_bytes(server->peak_rss_bytes, theirs),
                 human_bytes(memory_peak(), ours));
}

static int finish(const struct show *show, const struct swarm_run_options *options, const struct swarm *swarm)
{
    struct medians medians = {0};
    struct msg_status_reply server;
    struct err err;
    struct tls_setup *tls;
    char address[TRUST_ADDRESS_MAX];
    int rc = passport_operator(NULL, options->trust, &tls, address, &err);
    rc = rc ? rc : query_status(options->server, tls, MSG_HISTORY_MAX, QUERY_TIMEOUT_MS, &server, &err);
    tls_setup_free(tls);
    if (rc) {
        return cli_fail(&err);
    }
    int exit_code = 0;
    if (show->idle_seconds == 0 && find_medians(swarm, &server, &medians)) {
        (void)err_set(&err, ERR_NOMEM, "%s", err_meaning(ERR_NOMEM));
        exit_code = cli_fail(&err);
    } else if (show->json) {
        exit_code = cli_print_json(swarm_json(show, swarm, &medians, &server));
    } else {
        show_end(show, swarm, &medians, &server);
    }
    status_reply_fini(&server);
    return exit_code;
}

int verb_swarm(int argc, char **argv)
{
    static const struct cli_verb verb = {
        .usage = "starling swarm --server HOST:PORT --clients N [--trust DIR] [--rounds R] [--features ROWS] [--idle "
                 "SECONDS] "
                 "[--name NAME] [--json]",
        .about =
            "Loads a server with N clients that train nothing, all in this process: they speak the whole protocol, "
            "download the model and the features of others, and upload updates whose average is known beforehand. "
            "The model of each round is compared with it, bit for bit; a difference ends the swarm with exit 1. The "
            "run is used up by it: give it a server of its own, whose plan has min_clients: N, so that all are in "
            "the first round too. Nobody else may contribute. At most 64 of them download at a time. --json: clients, "
            "welcome_seconds, model_bytes, models_compared, rounds (round, seconds from ROUND to the last ACCEPTED, "
            "accepted, declined, bytes_up, bytes_down, mb_per_second, slots), seconds_median, mb_per_second_median, "
            "heartbeats, peak_rss_bytes; server: seconds_median, peak_rss_bytes, bank_rows.",
        .examples = "  starling swarm --server localhost:7640 --clients 100 --rounds 5\n"
                    "  starling swarm --server localhost:7640 --clients 10000 --idle 60 --json\n",
    };
    struct swarm_run_options options = {.swarm.rows = NO_ROWS};
    const char *name = "swarm";
    struct show show = {0};
    const struct flag flags[] = {
        {"server", FLAG_TEXT, &options.server, "HOST:PORT", "where the server listens", 0, 0, true},
        {"clients", FLAG_U32, &options.swarm.clients, "N", "how many (at most 20000; see the server's max_clients)", 1,
         SWARM_CLIENTS_MAX, true},
        {"trust", FLAG_TEXT, &options.trust, "DIR",
         "folder of `starling ca init`: with TLS, each client with a certificate of its own", 0, 0, false},
        {"rounds", FLAG_U32, &options.swarm.rounds, "R", "rounds (all that are left of the run)", 1, 1000000, false},
        {"features", FLAG_U32, &options.swarm.rows, "ROWS",
         "features that each uploads in a round (as many as the plan's fusion.upload)", 0, 1u << 20, false},
        {"idle", FLAG_U32, &show.idle_seconds, "SECONDS",
         "no rounds: the clients are welcomed and answer heartbeats for so long", 1, IDLE_SECONDS_MAX, false},
        {"name", FLAG_TEXT, &name, "NAME", "the clients are NAME-0, NAME-1, ... (swarm)", 0, 0, false},
        {"json", FLAG_SWITCH, &show.json, NULL, "one JSON object at the end, nothing else", 0, 0, false},
    };
    int exit_code;
    if (!cli_flags(&verb, flags, sizeof flags / sizeof flags[0], argc, argv, &exit_code)) {
        return exit_code;
    }
    struct err err;
    if (strlen(name) >= SWARM_NAME_MAX) {
        (void)err_set(&err, ERR_USAGE, "--name: at most %d letters", SWARM_NAME_MAX - 1);
        return cli_fail(&err);
    }
    (void)snprintf(options.swarm.name, sizeof options.swarm.name, "%s", name);
    options.swarm.rows_given = options.swarm.rows != NO_ROWS;
    options.swarm.idle = show.idle_seconds > 0;
    options.idle_ms = (uint64_t)show.idle_seconds * 1000;
    options.on_welcomed = show_welcomed;
    options.on_round = show_round;
    options.ctx = &show;
    struct swarm *swarm;
    int rc = swarm_run(&options, &swarm, &err);
    exit_code = rc ? cli_fail(&err) : finish(&show, &options, swarm);
    swarm_free(swarm);
    return exit_code;
}
