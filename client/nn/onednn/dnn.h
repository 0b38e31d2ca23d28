/* What every primitive of one net shares: engine, stream, scratchpad, the memory that maps lie in, and the objects that
 * have to be destroyed in the end.
 *
 * Planning has two halves. First operations are described: descriptors are made, which settles the layouts of all maps,
 * and memory objects are created on numbered buffers that only remember how large they must become. dnn_allocate then
 * allocates every buffer once and points the memory objects at them; from there on nothing is allocated by us. */
#ifndef STARLING_NN_ONEDNN_DNN_H
#define STARLING_NN_ONEDNN_DNN_H

#include "common/base/err.h"

#include <oneapi/dnnl/dnnl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DNN_ARGS_MAX 12
#define DNN_NONE     (-1) /* no buffer */

struct dnn_buffer {
    size_t bytes;
    int users; /* while planning: 0 means that it may be taken again */
    bool pooled;
    void *data;
};

struct dnn {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_attr_t attr, attr_add; /* scratchpad by the user; attr_add: a reorder that adds to its target */
    struct dnn_buffer *buffers;           /* 0 is the scratchpad */
    int buffers_count, buffers_cap;
    struct dnn_owned {
        dnnl_memory_t memory;
        int buffer;
    } * memories;
    int memories_count, memories_cap;
    dnnl_primitive_t *primitives;
    int primitives_count, primitives_cap;
    dnnl_primitive_desc_t *descs;
    int descs_count, descs_cap;
};

/* One primitive with its arguments, ready to run. */
struct dnn_call {
    dnnl_primitive_t primitive;
    int count;
    dnnl_exec_arg_t args[DNN_ARGS_MAX];
};

/* oneDNN was built with OpenMP and asks it how many threads to use, when a primitive is created and when it runs. The
 * calling thread's answer becomes one: parallelism is the workers' business. */
void dnn_single_thread(void);

int dnn_init(struct dnn *dnn, struct err *err);
void dnn_fini(struct dnn *dnn);
int dnn_check(dnnl_status_t status, const char *what, struct err *err);

/* A buffer of its own. */
int dnn_buffer_new(struct dnn *dnn, size_t bytes, int *buffer, struct err *err);
/* A buffer out of the pool: one whose users have all gone, if there is one. dnn_share adds a user, dnn_release takes
 * one away. Valid while planning, in the order in which the net will run. */
int dnn_acquire(struct dnn *dnn, size_t bytes, int *buffer, struct err *err);
void dnn_share(struct dnn *dnn, int buffer);
void dnn_release(struct dnn *dnn, int buffer);
float *dnn_data(const struct dnn *dnn, int buffer);

/* A memory object on a buffer, which grows to hold it; on DNN_NONE its data is set before each run. */
int dnn_memory(struct dnn *dnn, const dnnl_memory_desc_t *md, int buffer, dnnl_memory_t *memory, struct err *err);
/* A primitive descriptor, destroyed with the net. hint: the forward descriptor of a backward pass, else NULL. */
int dnn_describe(struct dnn *dnn, const void *op_desc, dnnl_primitive_desc_t hint, const char *what,
                 dnnl_primitive_desc_t *desc, struct err *err);
int dnn_describe_reorder(struct dnn *dnn, const dnnl_memory_desc_t *src, const dnnl_memory_desc_t *dst, bool add_to,
                         dnnl_primitive_desc_t *desc, struct err *err);
/* The layout that a descriptor chose for one of its arguments (dnnl_query_src_md, ...). */
const dnnl_memory_desc_t *dnn_md(const_dnnl_primitive_desc_t desc, dnnl_query_t what);
/* The primitive and its scratchpad argument. */
int dnn_call_init(struct dnn *dnn, dnnl_primitive_desc_t desc, struct dnn_call *call, struct err *err);
void dnn_call_arg(struct dnn_call *call, int arg, dnnl_memory_t memory);
int dnn_allocate(struct dnn *dnn, struct err *err);
int dnn_run(const struct dnn *dnn, const struct dnn_call *call, struct err *err);

#endif
