/* Which buffer each map and each gradient lies in.
 *
 * Forward: a training net keeps every map, since backward reads them; the others give a map's buffer back after its
 * last reader and normalise in place. A sum always overwrites its branch, which nobody else reads.
 *
 * Backward, in reverse order: a gradient's buffer is taken when it is written and given back when the step that
 * consumes it is done. A shared one (the gradient by a sum is the gradient by both its terms) goes back with its last
 * user. */
#include "client/nn/onednn/step.h"

/* Whether `map` was given to the net and not computed from something that is trained. */
static bool constant(const struct net *net, int map)
{
    for (int i = 0; i < net->steps_count; i++) {
        const struct step *step = &net->steps[i];
        if (step->dst == map) {
            return step->kind == STEP_REORDER && constant(net, step->src);
        }
    }
    return true;
}

static void read_done(struct net *net, int map)
{
    if (--net->maps[map].readers == 0 && net->mode != NET_TRAIN) {
        dnn_release(&net->dnn, net->maps[map].data);
    }
}

int place_forward(struct net *net, struct err *err)
{
    for (int i = 0; i < net->steps_count; i++) {
        const struct step *step = &net->steps[i];
        net->maps[step->src].readers++;
        if (step->kind == STEP_ADD) {
            net->maps[step->other].readers++;
        }
    }
    int rc = dnn_acquire(&net->dnn, net->maps[0].floats * sizeof(float), &net->maps[0].data, err);
    for (int i = 0; i < net->steps_count && rc == 0; i++) {
        const struct step *step = &net->steps[i];
        struct net_map *src = &net->maps[step->src], *dst = &net->maps[step->dst];
        bool normalises_alone = step->kind == STEP_BN && net->mode != NET_TRAIN && src->readers == 1;
        if (step->kind == STEP_ADD || normalises_alone) {
            dst->data = src->data;
            dnn_share(&net->dnn, dst->data);
        } else {
            rc = dnn_acquire(&net->dnn, dst->floats * sizeof(float), &dst->data, err);
        }
        if (rc == 0) {
            read_done(net, step->src);
        }
        if (rc == 0 && step->kind == STEP_ADD) {
            read_done(net, step->other);
        }
    }
    return rc;
}

static void add_gradient(struct net_map *map, int buffer)
{
    map->grad[map->grads++] = buffer;
}

static int place_step(struct net *net, struct step *step, struct err *err)
{
    struct net_map *src = &net->maps[step->src], *dst = &net->maps[step->dst];
    int first = dst->grad[0];
    step->dsrc = DNN_NONE;
    step->sum_first = step->kind != STEP_ADD && dst->grads == 2;
    if (step->kind == STEP_ADD) {
        /* In place; both terms get the same. */
        step->dsrc = first;
        dnn_share(&net->dnn, first);
        add_gradient(src, first);
        if (!constant(net, step->other)) {
            dnn_share(&net->dnn, first);
            add_gradient(&net->maps[step->other], first);
        }
    } else if (!constant(net, step->src)) {
        if (step->kind == STEP_BN && net->dnn.buffers[first].users == 1) {
            step->dsrc = first;
            dnn_share(&net->dnn, first);
        } else {
            int rc = dnn_acquire(&net->dnn, src->floats * sizeof(float), &step->dsrc, err);
            if (rc != 0) {
                return rc;
            }
        }
        add_gradient(src, step->dsrc);
    }
    for (int k = 0; k < dst->grads; k++) {
        dnn_release(&net->dnn, dst->grad[k]);
    }
    return 0;
}

int place_backward(struct net *net, struct err *err)
{
    struct net_map *last = &net->maps[net->maps_count - 1];
    int rc = dnn_acquire(&net->dnn, last->floats * sizeof(float), &last->grad[0], err);
    last->grads = 1;
    for (int i = net->steps_count; i-- > 0 && rc == 0;) {
        rc = place_step(net, &net->steps[i], err);
    }
    return rc;
}
