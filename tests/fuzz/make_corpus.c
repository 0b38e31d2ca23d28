/* Writes the seeds of the corpora: one good input of each kind, from which a fuzzer finds the bad ones.
 *
 *     make_corpus tests/fuzz/corpus */
#include "common/config/plan.h"
#include "common/vec/modelfile.h"
#include "common/vec/quant.h"
#include "tests/support/msg_samples.h"

#include <stdio.h>

static int save(const char *corpus, const char *name, const struct buf *bytes)
{
    char path[4096];
    struct err err;
    struct span all = {bytes->data, bytes->len};
    (void)snprintf(path, sizeof path, "%s/%s", corpus, name);
    if (disk_save(&disk_posix, path, &all, 1, &err) != 0) {
        (void)fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    return 0;
}

static int append_sample(struct buf *out, uint8_t type)
{
    struct msg msg;
    sample_msg(type, &msg);
    int rc = msg_encode(&msg, out, NULL);
    rc = rc < 0 ? rc : buf_append(out, msg.raw, msg.raw_len);
    msg_fini(&msg);
    return rc;
}

static int make_messages(const char *corpus)
{
    int rc = 0;
    for (uint8_t type = 1; type < MSG_TYPE_END && rc == 0; type++) {
        struct buf bytes;
        char name[64];
        buf_init(&bytes, 1 << 20);
        (void)snprintf(name, sizeof name, "msg/%s", msg_type_name(type));
        rc = append_sample(&bytes, type);
        if (rc == 0) {
            buf_consume(&bytes, FRAME_HEADER_BYTES - 1); /* byte 0 of the input is the type */
            bytes.data[0] = type;
            bytes.len -= type == MSG_CHUNK ? 16 : 0;
            rc = save(corpus, name, &bytes);
        }
        buf_fini(&bytes);
    }
    return rc;
}

/* A conversation for each reader's state; `mode` as fuzz_frame.c reads it, 4 mends checksums. */
static int make_stream(const char *corpus, const char *name, uint8_t mode, const uint8_t *types)
{
    struct buf bytes;
    uint8_t head[2] = {mode, 13};
    buf_init(&bytes, 1 << 20);
    int rc = buf_append(&bytes, head, sizeof head);
    for (; *types && rc == 0; types++) {
        rc = append_sample(&bytes, *types);
    }
    rc = rc < 0 ? rc : save(corpus, name, &bytes);
    buf_fini(&bytes);
    return rc;
}

static int make_text(const char *corpus, const char *name, const char *text, size_t len)
{
    struct buf bytes;
    buf_init(&bytes, 1 << 20);
    int rc = buf_append(&bytes, text, len);
    rc = rc < 0 ? rc : save(corpus, name, &bytes);
    buf_fini(&bytes);
    return rc;
}

static int make_streams(const char *corpus)
{
    static const uint8_t greeting[] = {MSG_HELLO, MSG_BYE, 0};
    static const uint8_t trainer[] = {MSG_READY, MSG_FETCH, MSG_PROGRESS, MSG_OFFER, MSG_CHUNK, MSG_BYE, 0};
    static const uint8_t operator_[] = {MSG_STATUS, MSG_STATUS, MSG_BYE, 0};
    static const uint8_t client[] = {MSG_WELCOME,  MSG_ROUND,    MSG_CHUNK,     MSG_ALIVE,  MSG_GRANT, MSG_QUEUED,
                                     MSG_ACCEPTED, MSG_DECLINED, MSG_ROUND_END, MSG_REJECT, MSG_BYE,   0};
    static const uint8_t status[] = {MSG_WELCOME, MSG_STATUS_REPLY, 0};
    static const char http[] = "\x04\x05GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    static const char tls[] = "\x04\x05\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    static const char future[] = "\x05\x05\x03\x00\x00\x00\x01\x63\x01\x00\x03\x00\x00\x00....abc";
    return make_stream(corpus, "frame/greeting", 4 | 0, greeting) ||
           make_stream(corpus, "frame/trainer", 4 | 1, trainer) ||
           make_stream(corpus, "frame/trainer_unmended", 1, trainer) ||
           make_stream(corpus, "frame/operator", 4 | 2, operator_) ||
           make_stream(corpus, "frame/client", 4 | 3, client) || make_stream(corpus, "frame/status", 4 | 3, status) ||
           make_text(corpus, "frame/http", http, sizeof http - 1) ||
           make_text(corpus, "frame/tls", tls, sizeof tls - 1) ||
           make_text(corpus, "frame/future", future, sizeof future - 1);
}

static int make_modelfile(const char *corpus)
{
    struct model_info info = {.run = SAMPLE_HASH(1),
                              .plan_hash = SAMPLE_HASH(2),
                              .round = 3,
                              .spec = {.block = MODEL_BLOCK_BASIC,
                                       .stages = 1,
                                       .blocks = {1},
                                       .width = 2,
                                       .stem = MODEL_STEM_SMALL,
                                       .input = 8,
                                       .features = 4}};
    struct layout *layout = NULL;
    float *params = NULL;
    struct buf bytes;
    struct hash128 tail;
    struct err err = {0};
    buf_init(&bytes, 1 << 20);
    int rc = buf_append(&bytes, "\x01", 1); /* mended */
    rc = rc < 0 ? rc : layout_new(&info.spec, &layout, &err);
    params = rc < 0 ? NULL : mem_new_aligned((size_t)layout->total, sizeof *params);
    rc = params ? 0 : ERR_NOMEM;
    if (rc == 0) {
        struct buf head;
        params_init(layout, 1, params);
        buf_init(&head, 1 << 20);
        rc = modelfile_encode(&info, layout, params, &head, &tail);
        rc = rc < 0 ? rc : buf_append(&bytes, head.data, head.len);
        rc = rc < 0 ? rc : buf_append(&bytes, params, (size_t)layout->total * sizeof *params);
        rc = rc < 0 ? rc : buf_append(&bytes, &tail, sizeof tail);
        buf_fini(&head);
    }
    rc = rc < 0 ? rc : save(corpus, "modelfile/small", &bytes);
    if (rc == 0) {
        bytes.len = 200;
        rc = save(corpus, "modelfile/cut", &bytes);
    }
    buf_fini(&bytes);
    layout_free(layout);
    mem_free(params);
    return rc;
}

/* Two rows and an update of fuzz_quant.c's layout in each packed form. */
static int make_quant(const char *corpus)
{
    static const float rows[2][8] = {{0.6f, -0.8f}, {0.5f, 0.5f, -0.5f, 0.5f}};
    const struct model_spec spec = {.stages = 1, .blocks = {1}, .width = 4, .input = 8, .features = 8};
    struct layout *layout = NULL;
    uint32_t at;
    int rc = layout_new(&spec, &layout, NULL);
    float *update = rc ? NULL : mem_new((size_t)layout->total, sizeof *update);
    rc = update ? 0 : ERR_NOMEM;
    for (uint8_t form = QUANT_F16; form <= QUANT_INT8 && rc == 0; form++) {
        uint8_t bytes[1 << 14] = {form | 4};
        const char *rows_name = form == QUANT_F16 ? "quant/rows_f16" : "quant/rows_int8";
        const char *update_name = form == QUANT_F16 ? "quant/update_f16" : "quant/update_int8";
        (void)quant_rows_encode(form, rows[0], 2, 8, bytes + 1, &at);
        rc = make_text(corpus, rows_name, (const char *)bytes, 1 + (size_t)quant_rows_bytes(form, 2, 8));
        bytes[0] = form;
        params_init(layout, 1, update);
        (void)quant_update_encode(form, layout, update, bytes + 1, &at);
        rc =
            rc ? rc : make_text(corpus, update_name, (const char *)bytes, 1 + (size_t)quant_update_bytes(form, layout));
    }
    mem_free(update);
    layout_free(layout);
    return rc;
}

static int make_config(const char *corpus)
{
    struct plan plan;
    struct buf bytes;
    buf_init(&bytes, 1 << 20);
    config_defaults(&plan_set, &plan);
    int rc = plan_encode(&plan, &bytes);
    rc = rc < 0 ? rc : save(corpus, "config/standard", &bytes);
    if (rc == 0) {
        bytes.len /= 2;
        rc = save(corpus, "config/cut", &bytes);
    }
    buf_fini(&bytes);
    return rc || make_text(corpus, "config/anchor", "seed: &a 1\nrounds: *a\n", 22) ||
           make_text(corpus, "config/nested", "model: {blocks: [[2]], width: {}}\n", 34) ||
           make_text(corpus, "config/duplicate", "rounds: 1\nrounds: 2\n", 20) ||
           make_text(corpus, "config/unknown", "min_client: 2\n", 14);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        (void)fprintf(stderr, "usage: make_corpus tests/fuzz/corpus\n");
        return 64;
    }
    static const char *const folders[] = {"msg", "frame", "modelfile", "quant", "config"};
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        char path[4096];
        (void)snprintf(path, sizeof path, "%s/%s", argv[1], folders[i]);
        if (disk_make_folder(&disk_posix, path, NULL) != 0) {
            return 73;
        }
    }
    if (make_messages(argv[1]) || make_streams(argv[1]) || make_modelfile(argv[1]) || make_quant(argv[1]) ||
        make_config(argv[1])) {
        (void)fprintf(stderr, "a seed could not be made\n");
        return 1;
    }
    return 0;
}
