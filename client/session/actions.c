/* The list of actions. When it cannot grow, the step fails as a whole (session->rc), so that no handler has to look. */
#include "client/session/state.h"
#include "common/base/mem.h"

static void action_fini(struct session_action *action)
{
    msg_fini(&action->message);
    mem_free(action->model);
    mem_free(action->remote);
}

void session_actions_clear(struct session_actions *actions)
{
    for (size_t i = 0; i < actions->count; i++) {
        action_fini(&actions->items[i]);
    }
    actions->count = 0;
}

void session_actions_fini(struct session_actions *actions)
{
    session_actions_clear(actions);
    mem_free(actions->items);
    *actions = (struct session_actions){0};
}

static int grow(struct session_actions *actions)
{
    if (actions->count < actions->capacity) {
        return 0;
    }
    size_t capacity = actions->capacity ? 2 * actions->capacity : 8;
    struct session_action *items = mem_resize(actions->items, capacity, sizeof *items);
    if (!items) {
        return ERR_NOMEM;
    }
    actions->items = items;
    actions->capacity = capacity;
    return 0;
}

void session_act(struct session *session, struct session_action action)
{
    if (session->rc == 0) {
        session->rc = grow(session->out);
    }
    if (session->rc) {
        action_fini(&action);
        return;
    }
    session->out->items[session->out->count++] = action;
}

void session_send(struct session *session, struct msg msg)
{
    session_act(session, (struct session_action){.kind = SESSION_SEND, .message = msg});
}
