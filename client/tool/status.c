/* starling status: one question to a running server, shown as tables for people or as one JSON object. */
#include "client/tool/status.h"

#include "client/shell/passport.h"
#include "client/shell/query.h"
#include "client/tool/cli.h"
#include "client/tool/human.h"
#include "client/tool/verbs.h"

#include <jansson.h>
#include <string.h>

#define TEXT_MAX         ((size_t)16 << 20)
#define QUERY_TIMEOUT_MS 10000

static json_t *watch_json(const struct watch *watch)
{
    return watch->measured
               ? json_pack("{s:f, s:f, s:f, s:f}", "alignment", watch->alignment, "uniformity", watch->uniformity,
                           "feature_std", watch->deviation, "effective_rank", watch->rank)
               : json_null();
}

static json_t *part_json(double epsilon, double delta)
{
    return epsilon > 0 ? json_pack("{s:f, s:f}", "epsilon", epsilon, "delta", delta) : json_null();
}

static json_t *privacy_json(const struct privacy *privacy)
{
    return privacy->counted ? json_pack("{s:I, s:o, s:o}", "releases", (json_int_t)privacy->releases, "features",
                                        part_json(privacy->features_epsilon, privacy->features_delta), "update",
                                        part_json(privacy->update_epsilon, privacy->update_delta))
                            : json_null();
}

static json_t *client_json(const struct status_client *client)
{
    return json_pack(
        "{s:s, s:s, s:s, s:b, s:I, s:I, s:I, s:o, s:o, s:I, s:I, s:{s:I, s:I, s:I, s:I}, s:o, s:o, s:b, s:o}", "name",
        client->name, "role", role_name(client->role), "state", client->state, "connected", (int)client->connected,
        "last_seen_ms", (json_int_t)client->last_seen_ms, "batch", (json_int_t)client->step, "batches",
        (json_int_t)client->steps, "loss", client->steps ? cli_number(client->loss) : json_null(), "images_per_second",
        client->steps ? cli_number(client->images_per_second) : json_null(), "bytes_up", (json_int_t)client->bytes_up,
        "bytes_down", (json_int_t)client->bytes_down, "bytes_by_kind", "model",
        (json_int_t)client->bytes_by_kind[BLOB_MODEL], "remote", (json_int_t)client->bytes_by_kind[BLOB_REMOTE],
        "update", (json_int_t)client->bytes_by_kind[BLOB_UPDATE], "features",
        (json_int_t)client->bytes_by_kind[BLOB_FEATURES], "aggregate", watch_json(&client->aggregate), "own",
        watch_json(&client->own), "shares_features", (int)!client->withholds_features, "privacy",
        privacy_json(&client->privacy));
}

json_t *status_round_json(const struct status_round *round)
{
    return json_pack("{s:I, s:o, s:I, s:I, s:o, s:o, s:o, s:o, s:I, s:I, s:o, s:o, s:o}", "round",
                     (json_int_t)round->round, "seconds", cli_number(round->seconds), "accepted",
                     (json_int_t)round->accepted, "declined", (json_int_t)round->declined, "loss",
                     cli_number(round->loss), "loss_contrast", cli_number(round->loss_contrast), "loss_matching",
                     cli_number(round->loss_matching), "remote_share", cli_number(round->remote_share), "bytes_up",
                     (json_int_t)round->bytes_up, "bytes_down", (json_int_t)round->bytes_down, "aggregate",
                     watch_json(&round->aggregate), "own", watch_json(&round->own), "knn_top1",
                     round->has_knn ? cli_number(round->knn_top1) : json_null());
}

static json_t *strangers_json(const struct status_strangers *s)
{
    return s->told ? json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "waiting",
                               (json_int_t)s->waiting, "refused", (json_int_t)s->refused, "refused_address",
                               (json_int_t)s->refused_address, "made_way", (json_int_t)s->made_way, "silent",
                               (json_int_t)s->silent, "rejected", (json_int_t)s->rejected, "broken",
                               (json_int_t)s->broken, "faults", (json_int_t)s->faults, "slowed", (json_int_t)s->slowed,
                               "over_quota", (json_int_t)s->over_quota, "forgotten", (json_int_t)s->forgotten,
                               "lines_suppressed", (json_int_t)s->lines_suppressed)
                   : json_null();
}

json_t *status_json(const struct msg_status_reply *reply)
{
    char run[HASH_HEX], plan[HASH_HEX];
    json_t *clients = json_array(), *history = json_array();
    for (uint32_t i = 0; clients && i < reply->clients_count; i++) {
        (void)json_array_append_new(clients, client_json(&reply->clients[i]));
    }
    for (uint32_t i = 0; history && i < reply->history_count; i++) {
        (void)json_array_append_new(history, status_round_json(&reply->history[i]));
    }
    return json_pack("{s:s, s:s, s:I, s:I, s:s, s:s, s:I, s:I, s:o, s:{s:I, s:I, s:I}, s:I, s:o, s:o, s:o}", "run",
                     hash_hex(&reply->run, run), "plan_hash", hash_hex(&reply->plan_hash, plan), "round",
                     (json_int_t)reply->round, "rounds", (json_int_t)reply->rounds, "state", reply->state, "waits_for",
                     reply->waits_for, "remaining_ms", (json_int_t)reply->remaining_ms, "waited_ms",
                     (json_int_t)reply->waited_ms, "clients", clients, "bank", "rows", (json_int_t)reply->bank_rows,
                     "capacity", (json_int_t)reply->bank_capacity, "contributors", (json_int_t)reply->bank_contributors,
                     "peak_rss_bytes", (json_int_t)reply->peak_rss_bytes, "history", history, "alarm",
                     *reply->alarm ? json_string(reply->alarm) : json_null(), "strangers",
                     strangers_json(&reply->strangers));
}

/* What went wrong with whom, in one line; nothing while nothing has. */
static int text_strangers(const struct status_strangers *s, struct buf *out)
{
    const struct {
        const char *what;
        uint64_t count;
    } parts[] = {
        {"connections refused", s->refused},
        {"made way", s->made_way},
        {"said no HELLO", s->silent},
        {"rejected", s->rejected},
        {"broken frames", s->broken},
        {"faults", s->faults},
        {"slowed", s->slowed},
        {"over quota", s->over_quota},
        {"names forgotten", s->forgotten},
        {"log lines left out", s->lines_suppressed},
    };
    const char *before = "strangers  ";
    int code = 0;
    for (size_t i = 0; !code && i < sizeof parts / sizeof parts[0]; i++) {
        if (parts[i].count > 0) {
            code = buf_printf(out, "%s%llu %s", before, (unsigned long long)parts[i].count, parts[i].what);
            before = ", ";
        }
    }
    return code || before[0] != ',' ? code : buf_printf(out, "\n");
}

static int text_head(const struct msg_status_reply *reply, struct buf *out)
{
    char hex[HASH_HEX], left[HUMAN_MAX], since[HUMAN_MAX], up[HUMAN_MAX], rss[HUMAN_MAX], rows[HUMAN_MAX],
        capacity[HUMAN_MAX];
    int code = buf_printf(out, "round      %u of %u closed, %s\n", reply->round, reply->rounds, reply->state);
    if (!code && *reply->waits_for) {
        code = buf_printf(out, "waits for  %s", reply->waits_for);
        const char *before = " (";
        if (!code && reply->waited_ms) { /* servers of earlier builds do not say it */
            code = buf_printf(out, "%s%s so far", before, human_ms(reply->waited_ms, since));
            before = ", ";
        }
        if (!code && reply->remaining_ms) {
            code = buf_printf(out, "%s%s left", before, human_ms(reply->remaining_ms, left));
            before = ", ";
        }
        code = code ? code : buf_printf(out, before[0] == ',' ? ")\n" : "\n");
    }
    if (!code && *reply->alarm) {
        code = buf_printf(out, "alarm      %s\n", reply->alarm);
    }
    code = code ? code
                : buf_printf(out, "bank       %s of %s features, from %u client%s\n",
                             human_count(reply->bank_rows, rows), human_count(reply->bank_capacity, capacity),
                             reply->bank_contributors, reply->bank_contributors == 1 ? "" : "s");
    code = code ? code
                : buf_printf(out, "server     %s, up %s, peak memory %s\n", reply->software,
                             human_ms(reply->uptime_ms, up), human_bytes(reply->peak_rss_bytes, rss));
    code = code ? code : text_strangers(&reply->strangers, out);
    code = code ? code : buf_printf(out, "run        %s\n", hash_hex(&reply->run, hex));
    return code ? code : buf_printf(out, "plan       %s\n", hash_hex(&reply->plan_hash, hex));
}

/* "  0.93   41.0", or dashes. */
static const char *watch_text(const struct watch *watch, char out[32])
{
    if (watch->measured) {
        (void)snprintf(out, 32, "%6.3f %6.1f", watch->deviation, watch->rank);
    } else {
        (void)snprintf(out, 32, "%6s %6s", "-", "-");
    }
    return out;
}

static int text_client(const struct status_client *client, struct buf *out)
{
    char seen[HUMAN_MAX], up[HUMAN_MAX], down[HUMAN_MAX], batch[32] = "-", loss[32] = "-", speed[32] = "-";
    char own[32];
    if (client->steps) {
        (void)snprintf(batch, sizeof batch, "%u/%u", client->step, client->steps);
        (void)snprintf(loss, sizeof loss, "%.3f", client->loss);
        (void)snprintf(speed, sizeof speed, "%.0f", client->images_per_second);
    }
    return buf_printf(out, "  %-20s %-9s %-12s %10s %11s %8s %9s %8s %8s %s\n", client->name, role_name(client->role),
                      client->connected ? client->state : "offline", human_ms(client->last_seen_ms, seen), batch, loss,
                      speed, human_bytes(client->bytes_up, up), human_bytes(client->bytes_down, down),
                      watch_text(&client->own, own));
}

static int text_part(const char *what, double epsilon, double delta, struct buf *out)
{
    return epsilon > 0 ? buf_printf(out, "; %s: epsilon %.3g at delta %.1g", what, epsilon, delta) : 0;
}

/* A line below the table; none for clients of a plan without noise. */
static int text_privacy(const struct status_client *client, struct buf *out)
{
    const struct privacy *privacy = &client->privacy;
    if (!privacy->counted) {
        return 0;
    }
    int code = buf_printf(out, "  privacy of %s: %u releases", client->name, privacy->releases);
    code = code ? code : text_part("features", privacy->features_epsilon, privacy->features_delta, out);
    code = code ? code : text_part("updates", privacy->update_epsilon, privacy->update_delta, out);
    return code ? code : buf_printf(out, "\n");
}

static int text_round(const struct status_round *round, struct buf *out)
{
    char aggregate[32], knn[16] = "-", up[HUMAN_MAX], down[HUMAN_MAX];
    if (round->has_knn) {
        (void)snprintf(knn, sizeof knn, "%.3f", round->knn_top1);
    }
    return buf_printf(out, "  %5u %9.1f %8u %8u %8.3f %9.3f %9.3f %7.0f %% %8s %8s %s %6s\n", round->round,
                      round->seconds, round->accepted, round->declined, round->loss, round->loss_contrast,
                      round->loss_matching, 100 * round->remote_share, human_bytes(round->bytes_up, up),
                      human_bytes(round->bytes_down, down), watch_text(&round->aggregate, aggregate), knn);
}

int status_text(const struct msg_status_reply *reply, struct buf *out)
{
    int code = text_head(reply, out);
    if (!code && reply->clients_count == 0) {
        code = buf_printf(out, "\nno clients yet\n");
    } else if (!code) {
        code = buf_printf(out, "\n  %-20s %-9s %-12s %10s %11s %8s %9s %8s %8s %6s %6s\n", "client", "role", "state",
                          "seen ago", "batch", "loss", "images/s", "up", "down", "std", "rank");
    }
    for (uint32_t i = 0; !code && i < reply->clients_count; i++) {
        code = text_client(&reply->clients[i], out);
    }
    for (uint32_t i = 0; !code && i < reply->clients_count; i++) {
        code = text_privacy(&reply->clients[i], out);
    }
    if (!code && reply->history_count) {
        code =
            buf_printf(out, "\n  %5s %9s %8s %8s %8s %9s %9s %9s %8s %8s %6s %6s %6s\n", "round", "seconds", "counted",
                       "declined", "loss", "contrast", "matching", "remote", "up", "down", "std", "rank", "kNN");
    }
    for (uint32_t i = 0; !code && i < reply->history_count; i++) {
        code = text_round(&reply->history[i], out);
    }
    return code;
}

/* A server with TLS answers who comes without as it answers another version; its own words are for clients. */
static void say_how_to_ask(struct err *err)
{
    char said[sizeof err->text];
    memcpy(said, err->text, sizeof said);
    (void)err_set(err, err->code,
                  "%.250s; to ask a server that speaks TLS add --trust DIR (the CA's folder) on its machine, elsewhere "
                  "--identity DIR, a folder of `starling join TOKEN --out DIR` with a token of `starling ca token "
                  "--name NAME --role operator`",
                  said);
}

int verb_status(int argc, char **argv)
{
    static const struct cli_verb verb = {
        .usage = "starling status [--server HOST:PORT] [--trust DIR | --identity DIR] [--history N] [--json]",
        .about =
            "Asks a running server for its round, its state and what that waits for, its clients, its feature bank "
            "and the last rounds. std and rank are the spread of the features and the directions that they span: a "
            "client's own after it trained, a round's as it began. kNN is what an observer found of its result. "
            "privacy: what "
            "a client's contributions have cost, where the plan has noise: for its features when one image is "
            "replaced, for "
            "its updates when all are. Exit "
            "69 when no server answers.",
        .examples =
            "  starling status --trust starling-trust          on the server's machine\n"
            "  starling status --identity ops                  elsewhere, after `starling join TOKEN --out ops`\n"
            "  starling status --server localhost:7640         a server without TLS\n"
            "  starling status --server localhost:7640 --json | jq .waits_for\n",
    };
    const char *server = NULL, *trust = NULL, *identity = NULL;
    uint32_t history = 10;
    bool json = false;
    const struct flag flags[] = {
        {"server", FLAG_TEXT, &server, "HOST:PORT", "where the server listens; default: what the CA or the token says",
         0, 0, false},
        {"trust", FLAG_TEXT, &trust, "DIR", "folder of `starling ca init`: asks as the server's owner", 0, 0, false},
        {"identity", FLAG_TEXT, &identity, "DIR", "folder of an operator's certificate", 0, 0, false},
        {"history", FLAG_U32, &history, "N", "closed rounds to show, newest last (10)", 0, MSG_HISTORY_MAX, false},
        {"json", FLAG_SWITCH, &json, NULL, "one JSON object instead of tables", 0, 0, false},
    };
    int exit_code;
    if (!cli_flags(&verb, flags, sizeof flags / sizeof flags[0], argc, argv, &exit_code)) {
        return exit_code;
    }
    struct msg_status_reply reply;
    struct err err;
    struct tls_setup *tls;
    char address[TRUST_ADDRESS_MAX];
    if (!server && !trust && !identity) {
        (void)err_set(&err, ERR_USAGE, "--server, --trust or --identity is needed; see starling status --help");
        return cli_fail(&err);
    }
    int rc = passport_operator(identity, trust, &tls, address, &err);
    rc = rc ? rc : query_status(server ? server : address, tls, history, QUERY_TIMEOUT_MS, &reply, &err);
    if (rc == ERR_VERSION && !tls) {
        say_how_to_ask(&err);
    }
    tls_setup_free(tls);
    if (rc) {
        return cli_fail(&err);
    }
    if (json) {
        exit_code = cli_print_json(status_json(&reply));
    } else {
        struct buf text;
        buf_init(&text, TEXT_MAX);
        int code = status_text(&reply, &text);
        exit_code = code ? cli_fail((err_set(&err, code, "%s", err_meaning(code)), &err)) : cli_print(&text);
        buf_fini(&text);
    }
    status_reply_fini(&reply);
    return exit_code;
}
