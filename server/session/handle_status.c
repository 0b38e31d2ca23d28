/* STATUS: everything that an operator may see, in one reply. One reply is under way at a time, so that somebody who
 * asks without reading costs no more memory than one. */
#include "common/base/mem.h"
#include "server/session/state.h"

#include <stdio.h>
#include <string.h>

static void describe_client(const struct coordinator *c, const struct member *member, struct status_client *out)
{
    const struct peer *peer = member->peer == NONE ? NULL : c->peers[member->peer];
    memcpy(out->name, member->name, sizeof out->name);
    out->role = member->role;
    bool refused = c->round.members[member - c->members].refused;
    (void)snprintf(out->state, sizeof out->state, "%s",
                   !peer     ? "AWAY"
                   : refused ? "REFUSED"
                             : peer_state_name(peer->state));
    out->last_seen_ms = c->now_ms - member->last_seen_ms;
    out->connected = peer != NULL;
    out->step = member->step;
    out->steps = member->steps;
    out->loss = member->loss;
    out->images_per_second = member->images_per_second;
    out->bytes_up = member->bytes_up;
    out->bytes_down = member->bytes_down;
    memcpy(out->bytes_by_kind, member->bytes_by_kind, sizeof out->bytes_by_kind);
    out->aggregate = member->aggregate;
    out->own = member->own;
    out->privacy = member->privacy;
    out->withholds_features = member_withholds(c, (uint32_t)(member - c->members));
}

static void describe_round(const struct round_summary *summary, struct status_round *out)
{
    *out = (struct status_round){
        .round = summary->round,
        .seconds = summary->seconds,
        .accepted = summary->accepted,
        .declined = summary->declined,
        .loss = summary->loss,
        .loss_contrast = summary->loss_contrast,
        .loss_matching = summary->loss_matching,
        .remote_share = summary->remote_share,
        .bytes_up = summary->bytes_up,
        .bytes_down = summary->bytes_down,
        .aggregate = summary->aggregate,
        .own = summary->own,
        .has_knn = summary->has_knn,
        .knn_top1 = summary->knn_top1,
    };
}

static void reply_to(struct coordinator *c, struct peer *peer, uint32_t wanted)
{
    uint32_t clients = c->round.count < MSG_CLIENTS_MAX ? c->round.count : MSG_CLIENTS_MAX;
    uint32_t history = c->history_count < wanted ? c->history_count : wanted;
    history = history < MSG_HISTORY_MAX ? history : MSG_HISTORY_MAX;

    struct msg msg = {.type = MSG_STATUS_REPLY};
    struct msg_status_reply *reply = &msg.status_reply;
    reply->clients = mem_new(clients, sizeof *reply->clients);
    reply->history = mem_new(history, sizeof *reply->history);
    if (!reply->clients || !reply->history) {
        msg_fini(&msg);
        peer_nomem(c, peer, "STATUS_REPLY");
        return;
    }
    reply->run = c->run;
    reply->plan_hash = c->plan_hash;
    (void)snprintf(reply->software, sizeof reply->software, "starling %s", STARLING_VERSION);
    reply->round = c->round.durable;
    reply->rounds = c->plan->rounds;
    (void)snprintf(reply->state, sizeof reply->state, "%s", round_state(&c->round));
    waits_for(c, reply->waits_for);
    reply->remaining_ms = remaining_ms(c);
    reply->waited_ms = c->now_ms - c->round.since_ms;
    reply->uptime_ms = c->now_ms - c->started_ms;
    reply->bank_rows = c->bank->rows;
    reply->bank_capacity = c->bank->capacity;
    reply->bank_contributors = c->bank->owners_count;
    reply->peak_rss_bytes = c->peak_rss_bytes;
    alarm_text(c, reply->alarm);
    reply->strangers = c->strangers.told;
    reply->strangers.told = true;
    reply->strangers.waiting = c->strangers.count;
    reply->strangers.lines_suppressed = c->peers_log.suppressed;
    for (uint32_t i = 0; i < clients; i++) {
        describe_client(c, &c->members[c->round.order[i]], &reply->clients[i]);
    }
    for (uint32_t i = 0; i < history; i++) {
        describe_round(&c->history[c->history_count - history + i], &reply->history[i]);
    }
    reply->clients_count = clients;
    reply->history_count = history;
    peer_send(c, peer, &msg);
}

void status_continue(struct coordinator *c, struct peer *peer)
{
    if (peer->asked > 0 && !peer->sending) {
        peer->asked--;
        peer->sending = true;
        reply_to(c, peer, peer->asked_history);
    }
}

void handle_status(struct coordinator *c, struct peer *peer, const struct msg_status *status)
{
    peer->asked++;
    peer->asked_history = status->history;
    status_continue(c, peer);
}
