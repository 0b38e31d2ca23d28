/* Writes the seeds of the corpora: one good input of each kind, from which a fuzzer finds the bad ones.
 *
 *     make_corpus tests/fuzz/corpus */
#include "client/shell/files.h"
#include "common/config/plan.h"
#include "common/trust/internal.h"
#include "common/trust/token.h"
#include "common/vec/modelfile.h"
#include "common/vec/quant.h"
#include "server/bank/bank.h"
#include "server/store/checkpoint.h"
#include "tests/support/msg_samples.h"
#include "tests/support/tls_world.h"

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

/* A token as text, as the bytes before its checksum, cut, and of a version to come. */
static int make_token(const char *corpus)
{
    const struct token token = {
        .address = "[2001:db8::1]:7640", .name = "site-a", .role = TRUST_TRAINER, .expires = 1800000000};
    static const char future[] = "\0starling2:AXxaCmsAAAAAAQ";
    uint8_t bytes[110] = "\x01\x01\0\xd2\x49\x6b\0\0\0\0\x01\x01"
                         "a\x03\0h:1";
    char text[TOKEN_TEXT_MAX + 1] = "";
    if (token_write(&token, text + 1, NULL)) {
        return 1;
    }
    size_t len = 1 + strlen(text + 1);
    return make_text(corpus, "token/whole", text, len) || make_text(corpus, "token/cut", text, len - 9) ||
           make_text(corpus, "token/bytes", (const char *)bytes, 18 + 64) ||
           make_text(corpus, "token/future", future, sizeof future - 1);
}

/* A request in fuzz_csr.c's two ways, and an authority's certificate. */
static int make_csr(const char *corpus)
{
    uint8_t bytes[1024], *csr = NULL, *certificate = NULL;
    size_t len = 0;
    EVP_PKEY *key = NULL;
    X509 *ca = NULL;
    int rc = key_new(&key, NULL);
    rc = rc ? rc : csr_new(key, &csr, &len, NULL);
    rc = rc ? rc : certificate_root(key, 1800000000, &ca, NULL);
    for (uint8_t way = 0; way < 2 && rc == 0; way++) {
        bytes[0] = way;
        memcpy(bytes + 1, csr, len);
        rc = make_text(corpus, way ? "csr/signed_anew" : "csr/whole", (const char *)bytes, 1 + len);
    }
    int bytes_ca = rc ? 0 : i2d_X509(ca, &certificate);
    if (bytes_ca > 0) {
        bytes[0] = 2;
        memcpy(bytes + 1, certificate, (size_t)bytes_ca);
        rc = make_text(corpus, "csr/authority", (const char *)bytes, 1 + (size_t)bytes_ca);
    }
    OPENSSL_free(csr);
    OPENSSL_free(certificate);
    X509_free(ca);
    EVP_PKEY_free(key);
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

/* Two owners, three rows; byte 0 of the input is the capacity less one. */
static int make_bank_bytes(struct buf *out)
{
    static const float rows[2][2][4] = {{{0.6f, 0.8f}, {0.5f, 0.5f, -0.5f, 0.5f}}, {{0, -1}}};
    struct bank *empty = NULL, *bank = NULL;
    struct bank_intake *intake = NULL;
    uint8_t *bytes = NULL;
    uint64_t len;
    int rc = bank_new(16, 4, &empty);
    rc = rc ? rc : bank_intake_new(16, 4, &intake);
    rc = rc ? rc : bank_intake_add(intake, "site-A", 3, rows[0][0], 2);
    rc = rc ? rc : bank_intake_add(intake, "site-B", 3, rows[1][0], 1);
    rc = rc ? rc : bank_merge(empty, intake, &bank);
    rc = rc ? rc : bank_encode(bank, &bytes, &len);
    rc = rc ? rc : buf_append(out, bytes, (size_t)len);
    bank_free(empty);
    bank_free(bank);
    bank_intake_free(intake);
    mem_free(bytes);
    return rc;
}

static int make_bank(const char *corpus)
{
    struct buf bytes;
    buf_init(&bytes, 1 << 16);
    int rc = buf_append(&bytes, "\x0f", 1);
    rc = rc ? rc : make_bank_bytes(&bytes);
    rc = rc ? rc : save(corpus, "bank/two_owners", &bytes);
    if (rc == 0) {
        bytes.data[0] = 1;
        rc = save(corpus, "bank/cut_down", &bytes);
        bytes.len /= 2;
        rc = rc ? rc : save(corpus, "bank/truncated", &bytes);
    }
    buf_fini(&bytes);
    return rc;
}

static int make_checkpoint(const char *corpus)
{
    struct counted counted[2] = {{.round = 3, .name = "site-A"}, {.round = 2, .name = "site-B"}};
    struct checkpoint_model model = {SAMPLE_HASH(5), SAMPLE_HASH(6)};
    uint8_t plan[] = "rounds: 4\n", state[16] = {0};
    struct buf bytes, head, bank;
    struct hash128 tail;
    buf_init(&bytes, 1 << 20);
    buf_init(&head, 1 << 20);
    buf_init(&bank, 1 << 20);
    int rc = make_bank_bytes(&bank);
    const struct checkpoint checkpoint = {.round = 3,
                                          .run = SAMPLE_HASH(1),
                                          .plan = plan,
                                          .plan_len = sizeof plan - 1,
                                          .bank = bank.data,
                                          .bank_len = bank.len,
                                          .optimiser = state,
                                          .optimiser_len = sizeof state,
                                          .norms = {{0.75, 0.5}, {0.25, 0.125}},
                                          .counted = counted,
                                          .counted_count = 2,
                                          .summary = {.round = 3, .accepted = 1, .images = 24, .loss = 1.5}};
    rc = rc ? rc : checkpoint_encode(&checkpoint, &model, &head, &tail);
    rc = rc ? rc : buf_append(&bytes, "\x01", 1); /* mended */
    rc = rc ? rc : buf_append(&bytes, head.data, head.len);
    rc = rc ? rc : buf_append(&bytes, bank.data, bank.len);
    rc = rc ? rc : buf_append(&bytes, state, sizeof state);
    rc = rc ? rc : buf_append(&bytes, &tail, sizeof tail);
    rc = rc ? rc : save(corpus, "checkpoint/round_3", &bytes);
    if (rc == 0) { /* version 2: without norms, and their 80 bytes in front of the plan */
        bytes.data[1 + 8] = 2;
        memmove(bytes.data + 1 + 240, bytes.data + 1 + 320, bytes.len - 1 - 320);
        bytes.len -= 80;
        rc = save(corpus, "checkpoint/version_2", &bytes);
    }
    if (rc == 0) { /* version 1: without the measures and the state, and their 72 bytes in front of the plan */
        bytes.data[1 + 8] = 1;
        memmove(bytes.data + 1 + 168, bytes.data + 1 + 240, bytes.len - 1 - 240);
        bytes.len -= 72;
        memmove(bytes.data + bytes.len - 32, bytes.data + bytes.len - 16, 16);
        bytes.len -= 16;
        rc = save(corpus, "checkpoint/version_1", &bytes);
        bytes.len /= 2;
        rc = rc ? rc : save(corpus, "checkpoint/truncated", &bytes);
    }
    buf_fini(&bytes);
    buf_fini(&head);
    buf_fini(&bank);
    return rc;
}

static int make_state_file(const char *corpus, const char *name, uint8_t mode, int rc, struct file_image *image)
{
    struct buf bytes;
    buf_init(&bytes, 1 << 20);
    rc = rc ? rc : buf_append(&bytes, &mode, 1);
    for (size_t i = 0; i < image->count && rc == 0; i++) {
        rc = buf_append(&bytes, image->parts[i].data, image->parts[i].len);
    }
    rc = rc ? rc : save(corpus, name, &bytes);
    buf_fini(&bytes);
    file_image_fini(image);
    return rc;
}

/* Byte 0 of the input as fuzz_state.c reads it, 4 mends the hash. */
static int make_state(const char *corpus)
{
    uint8_t carry[24] = "a site's own state";
    const uint8_t secret[SECRET_BYTES] = "thirty-two bytes that are drawn";
    const struct hash128 instance = SAMPLE_HASH(9);
    struct kept_state state = {.run = SAMPLE_HASH(1), .plan_hash = SAMPLE_HASH(2), .round = 3};
    struct kept_pending pending = {.run = state.run, .plan_hash = state.plan_hash};
    struct contribution *contribution = &pending.contribution;
    struct blob blob = SAMPLE_BLOB(BLOB_UPDATE, 0, 0);
    struct file_image image;
    state.carry = pending.carry = (struct kept_carry){.round = 3, .data = carry, .bytes = sizeof carry};
    int rc = make_state_file(corpus, "state/state", 4 | 0, files_encode_state(&state, &image), &image);
    const struct kept_spent spent = {.run = state.run, .releases = 3, .features = 0.5, .updates = 2};
    rc = rc ? rc : make_state_file(corpus, "state/spent", 4 | 3, files_encode_spent(&spent, &image), &image);
    rc = rc ? rc : make_state_file(corpus, "state/secret", 4 | 8, files_encode_secret(secret, &image), &image);
    rc = rc ? rc : make_state_file(corpus, "state/instance", 4 | 2, files_encode_instance(&instance, &image), &image);
    contribution->round = 7;
    contribution->report = sample_msgs[MSG_OFFER].offer.report;
    contribution->update_blob = blob;
    contribution->update_blob.count = 6;
    contribution->update_blob.bytes = 24;
    contribution->update = bytes_copy(carry, 24);
    rc = rc || !contribution->update ? ERR_NOMEM : 0;
    rc = rc ? rc : make_state_file(corpus, "state/pending_bare", 4 | 1, files_encode_pending(&pending, &image), &image);
    contribution->features_blob = contribution->update_blob;
    contribution->features_blob.kind = BLOB_FEATURES;
    contribution->features_blob.dimension = 3;
    contribution->features_blob.encoder = 1;
    contribution->features = bytes_copy(carry, 24);
    rc = rc || !contribution->features ? ERR_NOMEM : 0;
    rc = rc ? rc : make_state_file(corpus, "state/pending", 4 | 1, files_encode_pending(&pending, &image), &image);
    contribution_fini(contribution);
    return rc;
}

/* Scripts for fuzz_session.c, a word for each step: what, who, and how in hexadecimal; behind '/' so many more bytes.
 */
static int make_script(const char *corpus, const char *name, const char *words)
{
    struct buf bytes;
    unsigned how;
    buf_init(&bytes, 1 << 16);
    int rc = 0;
    for (const char *at = words; *at && rc == 0; at += strspn(at, " ")) {
        uint8_t step[3] = {(uint8_t)at[0], (uint8_t)at[1], 0};
        at += 2;
        if (*at != ' ' && sscanf(at, "%2x", &how) == 1) {
            step[2] = (uint8_t)how;
        }
        at += strcspn(at, " /");
        rc = buf_append(&bytes, step, sizeof step);
        for (at += *at == '/'; rc == 0 && *at && *at != ' ' && sscanf(at, "%2x", &how) == 1; at += 2) {
            uint8_t byte = (uint8_t)how;
            rc = buf_append(&bytes, &byte, 1);
        }
    }
    rc = rc ? rc : save(corpus, name, &bytes);
    buf_fini(&bytes);
    return rc;
}

#define TWO_JOIN "o0 h000 y0c8 o1 h101 y1c8 "
static const struct {
    const char *name, *words;
} scripts[] = {
    {"session/run", TWO_JOIN "f000 t000 t100 c000 c100 f000 f001 t000 c001 t100 c100 t000 c000 t100 c100 s000"},
    {"session/declined", TWO_JOIN "t008 c000 t010 c000 t020 c000 t040 t080 c000 t0c0 t001 t002 t004 c000 w0ff w0ff"},
    {"session/no_features", TWO_JOIN "t004 c000 t104 c100 f000 f001"},
    {"session/uploads", TWO_JOIN "t000 c002 t100 l0 o2 h200 y2c8 t200 c100 c200 c203"},
    {"session/observer", TWO_JOIN "o2 h20a y2c8 t000 t100 c000 c100 f200 e201 e200"},
    {"session/operator", "o0 h010 s005 s005 b000"},
    {"session/killed", TWO_JOIN "t000 c000 k0 o0 h040 y0c8 o1 h141 y1c8 t000 t100 c000 c100 k0 o0 h040"},
    {"session/disk_full", TWO_JOIN "j004 t000 t100 c000 c100 w0ff j000 w0ff x0"},
    {"session/jobs_held", TWO_JOIN "j003 t000 t100 c000 j00b c100 j00b s000 j00b j000 x0"},
    {"session/names", "o0 h000 o1 h120 o2 h200 h200 o3 h318 o4 o5 o6 o7 w0ff"},
    {"session/any", "o0 m001/0408011001 o0 m011/020805"},
};

static int make_session(const char *corpus)
{
    int rc = 0;
    for (size_t i = 0; i < sizeof scripts / sizeof scripts[0] && rc == 0; i++) {
        rc = make_script(corpus, scripts[i].name, scripts[i].words);
    }
    return rc;
}

/* What a client and a server say first, as fuzz_tls.c reads it, and edits of a conversation. */
static int make_tls(const char *corpus)
{
    struct tls_world world;
    struct channel *server = NULL, *client = NULL;
    struct buf hello, answer;
    uint8_t byte;
    size_t got;
    tls_world_init(&world);
    struct tls_setup *of_server = tls_server_of(&world, "coordinator", TRUST_SERVER, 0);
    struct tls_setup *of_client = tls_client_of(&world, "site-a", TRUST_TRAINER, 0);
    buf_init(&hello, 1 << 20);
    buf_init(&answer, 1 << 20);
    int rc = channel_new(of_server, &server, NULL) || channel_new(of_client, &client, NULL) ||
             buf_append(&hello, "\0\0", 2) || buf_append(&answer, "\1\0", 2) ||
             buf_append(&hello, channel_output(client)->data, channel_output(client)->len);
    if (rc == 0) {
        channel_input(server, hello.data + 2, hello.len - 2);
        rc = channel_read(server, &byte, 1, &got, NULL) ||
             buf_append(&answer, channel_output(server)->data, channel_output(server)->len) ||
             save(corpus, "tls/hello", &hello) || save(corpus, "tls/answer", &answer) ||
             make_text(corpus, "tls/undisturbed", "\3\11", 2) ||
             make_text(corpus, "tls/changed", "\3\0\77\0\1\177\0\200", 8) ||
             make_text(corpus, "tls/twice", "\3\0\177\2\0\177\2\0\177\2\0", 11);
    }
    channel_free(server);
    channel_free(client);
    tls_setup_free(of_server);
    tls_setup_free(of_client);
    buf_fini(&hello);
    buf_fini(&answer);
    tls_world_fini(&world);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        (void)fprintf(stderr, "usage: make_corpus tests/fuzz/corpus\n");
        return 64;
    }
    static const char *const folders[] = {"msg",        "frame", "modelfile", "quant", "config", "bank",
                                          "checkpoint", "state", "session",   "token", "csr",    "tls"};
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        char path[4096];
        (void)snprintf(path, sizeof path, "%s/%s", argv[1], folders[i]);
        if (disk_make_folder(&disk_posix, path, NULL) != 0) {
            return 73;
        }
    }
    if (make_messages(argv[1]) || make_streams(argv[1]) || make_modelfile(argv[1]) || make_quant(argv[1]) ||
        make_config(argv[1]) || make_bank(argv[1]) || make_checkpoint(argv[1]) || make_state(argv[1]) ||
        make_session(argv[1]) || make_token(argv[1]) || make_csr(argv[1]) || make_tls(argv[1])) {
        (void)fprintf(stderr, "a seed could not be made\n");
        return 1;
    }
    return 0;
}
