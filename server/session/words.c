/* Sentences for people: what the server waits for, and until when. */
#include "server/session/state.h"

#include <stdio.h>
#include <string.h>

const char *peer_state_name(enum peer_state state)
{
    static const char *const names[] = {"NEW",    "OPERATOR",  "GREETED",  "OBSERVING", "READY",  "WORKING",
                                        "QUEUED", "UPLOADING", "CHECKING", "DELIVERED", "CLOSING"};
    return names[state];
}

/* Appends ", name" for as long as names fit; the last ones may become "...". */
static void list_names(const struct coordinator *c, bool (*wanted)(const struct coordinator *, uint32_t), char *out,
                       size_t size)
{
    size_t len = strlen(out);
    const char *before = ": ";
    for (uint32_t i = 0; i < c->round.count; i++) {
        uint32_t member = c->round.order[i];
        if (!wanted(c, member)) {
            continue;
        }
        const char *away = c->members[member].peer == NONE ? " (away)" : "";
        int more = snprintf(NULL, 0, "%s%s%s", before, c->members[member].name, away);
        if (len + (size_t)more + sizeof ", ..." > size) {
            (void)snprintf(out + len, size - len, ", ...");
            return;
        }
        len += (size_t)snprintf(out + len, size - len, "%s%s%s", before, c->members[member].name, away);
        before = ", ";
    }
}

static bool is_owing(const struct coordinator *c, uint32_t member)
{
    return round_owes(&c->round, member);
}

static bool is_ready(const struct coordinator *c, uint32_t member)
{
    return c->round.members[member].ready;
}

void waits_for(const struct coordinator *c, char out[MSG_TEXT_MAX])
{
    struct round_tally tally = round_count(&c->round);
    switch (c->round.phase) {
    case ROUND_WAITING:
        if (c->round.held) {
            (void)snprintf(out, MSG_TEXT_MAX, "%s", c->trouble);
            break;
        }
        (void)snprintf(out, MSG_TEXT_MAX, "%u more client%s, %u of %u are ready", c->plan->min_clients - tally.ready,
                       c->plan->min_clients - tally.ready == 1 ? "" : "s", tally.ready, c->plan->min_clients);
        list_names(c, is_ready, out, MSG_TEXT_MAX);
        break;
    case ROUND_OPEN:
        if (c->trouble[0]) {
            (void)snprintf(out, MSG_TEXT_MAX, "%s", c->trouble);
        } else if (c->round.stuck) {
            (void)snprintf(out, MSG_TEXT_MAX,
                           "clients that can do this round, %u of at least %u have delivered, %u "
                           "refused: %.150s",
                           tally.delivered, c->plan->min_clients, tally.refused, c->refusal);
        } else if (tally.owing > 0) {
            (void)snprintf(out, MSG_TEXT_MAX, "%u of %u clients", tally.owing, tally.participants);
            list_names(c, is_owing, out, MSG_TEXT_MAX);
        } else {
            (void)snprintf(out, MSG_TEXT_MAX, "more clients, %u of at least %u have delivered", tally.delivered,
                           c->plan->min_clients);
        }
        break;
    case ROUND_AGGREGATING:
        (void)snprintf(out, MSG_TEXT_MAX, "%s", c->trouble[0] ? c->trouble : "the aggregation");
        break;
    case ROUND_SAVING:
        (void)snprintf(out, MSG_TEXT_MAX, "%s", c->trouble[0] ? c->trouble : "the disk");
        break;
    case ROUND_DONE:
        (void)snprintf(out, MSG_TEXT_MAX, "nothing, the run is done");
        break;
    default:
        (void)snprintf(out, MSG_TEXT_MAX, "goodbyes");
        break;
    }
}

uint64_t remaining_ms(const struct coordinator *c)
{
    uint64_t until = 0;
    switch (c->round.phase) {
    case ROUND_OPEN:
        until = c->round.deadline_ms;
        break;
    case ROUND_AGGREGATING:
    case ROUND_SAVING:
        until = c->round.retry_ms == UINT64_MAX ? 0 : c->round.retry_ms;
        break;
    case ROUND_DRAINING:
        until = c->round.drain_until_ms;
        break;
    default:
        break;
    }
    return until > c->now_ms ? until - c->now_ms : 0;
}

const char *watch_fields(const struct watch *watch, const char *prefix, char out[WATCH_FIELDS_MAX])
{
    out[0] = '\0';
    if (watch->measured) {
        (void)snprintf(out, WATCH_FIELDS_MAX,
                       " %salignment=%.4g %suniformity=%.4g %sfeature_std=%.4g %seffective_rank=%.4g", prefix,
                       watch->alignment, prefix, watch->uniformity, prefix, watch->deviation, prefix, watch->rank);
    }
    return out;
}

void alarm_text(const struct coordinator *c, char out[MSG_TEXT_MAX])
{
    out[0] = '\0';
    if (c->collapsed.round != 0) {
        (void)snprintf(out, MSG_TEXT_MAX,
                       "the representation has collapsed (feature_std %.3f, effective_rank %.1f when round %u began): "
                       "begin a new run with a lower learning_rate or weight_decay, a temperature near 0.1, a longer "
                       "queue or more bn_groups",
                       c->collapsed.aggregate.deviation, c->collapsed.aggregate.rank, c->collapsed.round);
    }
}
