#include "client/nn/onednn/dnn.h"

#include "common/base/mem.h"

#include <omp.h>
#include <string.h>

void dnn_single_thread(void)
{
    omp_set_num_threads(1);
}

static const char *status_text(dnnl_status_t status)
{
    switch (status) {
    case dnnl_out_of_memory:
        return "out of memory";
    case dnnl_invalid_arguments:
        return "invalid arguments";
    case dnnl_unimplemented:
        return "not implemented for this processor";
    case dnnl_runtime_error:
        return "run-time error";
    default:
        return "unexpected status";
    }
}

int dnn_check(dnnl_status_t status, const char *what, struct err *err)
{
    if (status == dnnl_success) {
        return 0;
    }
    int code = status == dnnl_out_of_memory ? ERR_NOMEM : ERR_FAILED;
    return err_set(err, code, "oneDNN: %s: %s (status %d)", what, status_text(status), (int)status);
}

int dnn_init(struct dnn *dnn, struct err *err)
{
    *dnn = (struct dnn){0};
    dnnl_post_ops_t ops = NULL;
    int scratch, rc = 0;
    if ((rc = dnn_check(dnnl_engine_create(&dnn->engine, dnnl_cpu, 0), "engine", err)) ||
        (rc = dnn_check(dnnl_stream_create(&dnn->stream, dnn->engine, dnnl_stream_default_flags), "stream", err)) ||
        (rc = dnn_check(dnnl_primitive_attr_create(&dnn->attr), "attributes", err)) ||
        (rc = dnn_check(dnnl_primitive_attr_set_scratchpad_mode(dnn->attr, dnnl_scratchpad_mode_user), "scratchpad",
                        err)) ||
        (rc = dnn_check(dnnl_primitive_attr_clone(&dnn->attr_add, dnn->attr), "attributes", err)) ||
        (rc = dnn_check(dnnl_post_ops_create(&ops), "post-ops", err)) ||
        (rc = dnn_check(dnnl_post_ops_append_sum(ops, 1.0f), "post-ops", err)) ||
        (rc = dnn_check(dnnl_primitive_attr_set_post_ops(dnn->attr_add, ops), "post-ops", err)) ||
        (rc = dnn_buffer_new(dnn, 64, &scratch, err))) {
        dnn_fini(dnn);
    }
    dnnl_post_ops_destroy(ops);
    return rc;
}

void dnn_fini(struct dnn *dnn)
{
    for (int i = 0; i < dnn->primitives_count; i++) {
        dnnl_primitive_destroy(dnn->primitives[i]);
    }
    for (int i = 0; i < dnn->descs_count; i++) {
        dnnl_primitive_desc_destroy(dnn->descs[i]);
    }
    for (int i = 0; i < dnn->memories_count; i++) {
        dnnl_memory_destroy(dnn->memories[i].memory);
    }
    for (int i = 0; i < dnn->buffers_count; i++) {
        mem_free(dnn->buffers[i].data);
    }
    mem_free(dnn->primitives);
    mem_free(dnn->descs);
    mem_free(dnn->memories);
    mem_free(dnn->buffers);
    dnnl_primitive_attr_destroy(dnn->attr_add);
    dnnl_primitive_attr_destroy(dnn->attr);
    dnnl_stream_destroy(dnn->stream);
    dnnl_engine_destroy(dnn->engine);
    *dnn = (struct dnn){0};
}

/* Room for one more element in a growing array. */
static int grow(void *array, int count, int *cap, size_t size, struct err *err)
{
    void *old, *grown;
    if (count < *cap) {
        return 0;
    }
    memcpy(&old, array, sizeof old);
    int more = *cap ? *cap * 2 : 64;
    if (!(grown = mem_resize(old, (size_t)more, size))) {
        return err_set(err, ERR_NOMEM, "out of memory");
    }
    memcpy(array, &grown, sizeof grown);
    *cap = more;
    return 0;
}

int dnn_buffer_new(struct dnn *dnn, size_t bytes, int *buffer, struct err *err)
{
    int rc = grow(&dnn->buffers, dnn->buffers_count, &dnn->buffers_cap, sizeof *dnn->buffers, err);
    if (rc == 0) {
        *buffer = dnn->buffers_count++;
        dnn->buffers[*buffer] = (struct dnn_buffer){.bytes = bytes, .users = 1};
    }
    return rc;
}

/* Among the free buffers the smallest that is large enough, else the largest, which grows. */
int dnn_acquire(struct dnn *dnn, size_t bytes, int *buffer, struct err *err)
{
    int best = DNN_NONE;
    for (int i = 0; i < dnn->buffers_count; i++) {
        const struct dnn_buffer *b = &dnn->buffers[i];
        if (!b->pooled || b->users > 0) {
            continue;
        }
        size_t now = best == DNN_NONE ? 0 : dnn->buffers[best].bytes;
        bool fits = b->bytes >= bytes, best_fits = now >= bytes;
        if (best == DNN_NONE || (fits ? !best_fits || b->bytes < now : !best_fits && b->bytes > now)) {
            best = i;
        }
    }
    if (best == DNN_NONE) {
        int rc = dnn_buffer_new(dnn, bytes, buffer, err);
        if (rc == 0) {
            dnn->buffers[*buffer].pooled = true;
        }
        return rc;
    }
    dnn->buffers[best].users = 1;
    if (dnn->buffers[best].bytes < bytes) {
        dnn->buffers[best].bytes = bytes;
    }
    *buffer = best;
    return 0;
}

void dnn_share(struct dnn *dnn, int buffer)
{
    dnn->buffers[buffer].users++;
}

void dnn_release(struct dnn *dnn, int buffer)
{
    dnn->buffers[buffer].users--;
}

float *dnn_data(const struct dnn *dnn, int buffer)
{
    return dnn->buffers[buffer].data;
}

int dnn_memory(struct dnn *dnn, const dnnl_memory_desc_t *md, int buffer, dnnl_memory_t *memory, struct err *err)
{
    int rc = grow(&dnn->memories, dnn->memories_count, &dnn->memories_cap, sizeof *dnn->memories, err);
    if (rc != 0) {
        return rc;
    }
    rc = dnn_check(dnnl_memory_create(memory, md, dnn->engine, DNNL_MEMORY_NONE), "memory", err);
    if (rc != 0) {
        return rc;
    }
    dnn->memories[dnn->memories_count++] = (struct dnn_owned){*memory, buffer};
    if (buffer != DNN_NONE && dnn->buffers[buffer].bytes < dnnl_memory_desc_get_size(md)) {
        dnn->buffers[buffer].bytes = dnnl_memory_desc_get_size(md);
    }
    return 0;
}

static int own_desc(struct dnn *dnn, dnnl_primitive_desc_t desc, struct err *err)
{
    int rc = grow(&dnn->descs, dnn->descs_count, &dnn->descs_cap, sizeof *dnn->descs, err);
    if (rc != 0) {
        dnnl_primitive_desc_destroy(desc);
        return rc;
    }
    dnn->descs[dnn->descs_count++] = desc;
    return 0;
}

int dnn_describe(struct dnn *dnn, const void *op_desc, dnnl_primitive_desc_t hint, const char *what,
                 dnnl_primitive_desc_t *desc, struct err *err)
{
    int rc = dnn_check(dnnl_primitive_desc_create(desc, op_desc, dnn->attr, dnn->engine, hint), what, err);
    return rc ? rc : own_desc(dnn, *desc, err);
}

int dnn_describe_reorder(struct dnn *dnn, const dnnl_memory_desc_t *src, const dnnl_memory_desc_t *dst, bool add_to,
                         dnnl_primitive_desc_t *desc, struct err *err)
{
    int rc = dnn_check(dnnl_reorder_primitive_desc_create(desc, src, dnn->engine, dst, dnn->engine,
                                                          add_to ? dnn->attr_add : dnn->attr),
                       "reorder", err);
    return rc ? rc : own_desc(dnn, *desc, err);
}

const dnnl_memory_desc_t *dnn_md(const_dnnl_primitive_desc_t desc, dnnl_query_t what)
{
    return dnnl_primitive_desc_query_md(desc, what, 0);
}

int dnn_call_init(struct dnn *dnn, dnnl_primitive_desc_t desc, struct dnn_call *call, struct err *err)
{
    *call = (struct dnn_call){0};
    int rc = grow(&dnn->primitives, dnn->primitives_count, &dnn->primitives_cap, sizeof *dnn->primitives, err);
    if (rc == 0) {
        rc = dnn_check(dnnl_primitive_create(&call->primitive, desc), "primitive", err);
    }
    if (rc != 0) {
        return rc;
    }
    dnn->primitives[dnn->primitives_count++] = call->primitive;
    dnnl_memory_t scratch;
    rc = dnn_memory(dnn, dnn_md(desc, dnnl_query_scratchpad_md), 0, &scratch, err);
    if (rc == 0) {
        dnn_call_arg(call, DNNL_ARG_SCRATCHPAD, scratch);
    }
    return rc;
}

void dnn_call_arg(struct dnn_call *call, int arg, dnnl_memory_t memory)
{
    call->args[call->count++] = (dnnl_exec_arg_t){arg, memory};
}

int dnn_allocate(struct dnn *dnn, struct err *err)
{
    for (int i = 0; i < dnn->buffers_count; i++) {
        if (!(dnn->buffers[i].data = mem_new_aligned(dnn->buffers[i].bytes, 1))) {
            return err_set(err, ERR_NOMEM, "out of memory (%zu bytes for the network)", dnn->buffers[i].bytes);
        }
    }
    for (int i = 0; i < dnn->memories_count; i++) {
        const struct dnn_owned *owned = &dnn->memories[i];
        if (owned->buffer != DNN_NONE) {
            void *data = dnn->buffers[owned->buffer].data;
            int rc = dnn_check(dnnl_memory_set_data_handle(owned->memory, data), "memory", err);
            if (rc != 0) {
                return rc;
            }
        }
    }
    return 0;
}

int dnn_run(const struct dnn *dnn, const struct dnn_call *call, struct err *err)
{
    return dnn_check(dnnl_primitive_execute(call->primitive, dnn->stream, call->count, call->args), "execute", err);
}
