/* What verbs print: quantities, status, inspect, and the demo's lines and JSON. */
#include "client/tool/demo.h"
#include "client/tool/human.h"
#include "client/tool/inspect.h"
#include "client/tool/npy.h"
#include "client/tool/status.h"
#include "common/base/byteorder.h"
#include "common/base/mem.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

static void quantities_read_well(void **state)
{
    (void)state;
    char out[HUMAN_MAX];
    assert_string_equal(human_bytes(0, out), "0 B");
    assert_string_equal(human_bytes(999, out), "999 B");
    assert_string_equal(human_bytes(1000, out), "1.0 KB");
    assert_string_equal(human_bytes(9960, out), "10 KB");
    assert_string_equal(human_bytes(999499, out), "999 KB");
    assert_string_equal(human_bytes(999500, out), "1.0 MB"); /* never "1000 KB" */
    assert_string_equal(human_bytes(UINT64_MAX, out), "18 EB");
    assert_string_equal(human_ms(0, out), "0.0 s");
    assert_string_equal(human_ms(9949, out), "9.9 s");
    assert_string_equal(human_ms(9950, out), "10 s");
    assert_string_equal(human_ms(200000, out), "3 min 20 s");
    assert_string_equal(human_ms(7500000, out), "2 h 5 min");
    assert_string_equal(human_ms(277200000, out), "3 d 5 h");
    assert_string_equal(human_count(0, out), "0");
    assert_string_equal(human_count(999, out), "999");
    assert_string_equal(human_count(1234567, out), "1,234,567");
    assert_string_equal(human_count(UINT64_MAX, out), "18,446,744,073,709,551,615");
}

static void npy_header_is_what_numpy_reads(void **state)
{
    (void)state;
    uint8_t out[NPY_HEADER_BYTES];
    npy_header(3, 128, out);
    assert_memory_equal(out, "\x93NUMPY\x01\x00", 8);
    assert_int_equal(load_u16(out + 8) + 10, NPY_HEADER_BYTES);
    static const char dict[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 128), }";
    assert_memory_equal(out + 10, dict, sizeof dict - 1);
    assert_int_equal(out[10 + sizeof dict - 1], ' ');
    assert_int_equal(out[NPY_HEADER_BYTES - 1], '\n');
    npy_header(UINT64_MAX, UINT64_MAX, out); /* the longest numbers still fit */
    assert_int_equal(out[NPY_HEADER_BYTES - 1], '\n');
    assert_non_null(memchr(out, '}', NPY_HEADER_BYTES));
}

static void inspect_tells_every_tensor(void **state)
{
    (void)state;
    const struct model_spec spec = {.stages = 2, .blocks = {1, 1}, .width = 8, .input = 32, .features = 16};
    struct layout *layout;
    assert_int_equal(layout_new(&spec, &layout, NULL), 0);
    const struct model_info info = {.run.bytes = {0xab}, .round = 7, .spec = spec};
    json_t *object = inspect_json(&info, layout);
    assert_non_null(object);
    assert_string_equal(json_string_value(json_object_get(object, "run")), "ab000000000000000000000000000000");
    assert_int_equal(json_integer_value(json_object_get(object, "round")), 7);
    json_t *tensors = json_object_get(object, "tensors");
    assert_int_equal(json_array_size(tensors), layout->count);
    /* Shapes and parameters are two accounts of the same thing. */
    json_int_t total = 0;
    for (size_t i = 0; i < json_array_size(tensors); i++) {
        json_t *shape = json_object_get(json_array_get(tensors, i), "shape");
        json_int_t product = 1;
        for (size_t j = 0; j < json_array_size(shape); j++) {
            product *= json_integer_value(json_array_get(shape, j));
        }
        total += product;
    }
    assert_int_equal(json_integer_value(json_object_get(object, "parameters")), total);
    json_decref(object);

    struct buf text;
    buf_init(&text, 1 << 20);
    assert_int_equal(inspect_text(&info, layout, &text), 0);
    assert_int_equal(buf_append(&text, "", 1), 0);
    assert_non_null(strstr((const char *)text.data, "stem.conv.weight"));
    assert_non_null(strstr((const char *)text.data, " 8 x 3 x 3 x 3\n"));
    buf_fini(&text);
    layout_free(layout);
}

static struct status_client clients[] = {
    {.name = "north",
     .role = ROLE_TRAINER,
     .state = "training",
     .connected = true,
     .step = 3,
     .steps = 12,
     .loss = 4.5,
     .images_per_second = 250,
     .bytes_up = 1000,
     .bytes_down = 2000,
     .bytes_by_kind = {0, 1500, 500, 800, 200}},
    {.name = "south", .role = ROLE_TRAINER, .state = "ready", .last_seen_ms = 90000},
};
static struct status_round rounds[] = {
    {.round = 1,
     .seconds = 2.5,
     .accepted = 2,
     .declined = 1,
     .loss = 4.21,
     .loss_contrast = 4.1,
     .loss_matching = 0.11,
     .remote_share = 0.5,
     .bytes_up = 1200000,
     .bytes_down = 3400000},
};
static const struct msg_status_reply reply = {.software = "starling 0.1.0",
                                              .round = 1,
                                              .rounds = 10,
                                              .state = "open",
                                              .waits_for = "2 of 5 clients",
                                              .remaining_ms = 60000,
                                              .waited_ms = 5000,
                                              .bank_rows = 5,
                                              .bank_capacity = 10,
                                              .bank_contributors = 2,
                                              .peak_rss_bytes = 12345678,
                                              .strangers = {.told = true, .refused = 7, .slowed = 2},
                                              .clients_count = 2,
                                              .history_count = 1,
                                              .clients = clients,
                                              .history = rounds};

static void assert_keys(const json_t *object, const char *const *keys)
{
    for (size_t i = 0; keys[i]; i++) {
        if (!json_object_get(object, keys[i])) {
            fail_msg("key \"%s\" is missing", keys[i]);
        }
    }
}

static void status_json_has_the_promised_keys(void **state)
{
    (void)state;
    json_t *object = status_json(&reply);
    assert_non_null(object);
    static const char *const keys[] = {"run",          "plan_hash", "round", "rounds",         "state",   "waits_for",
                                       "remaining_ms", "clients",   "bank",  "peak_rss_bytes", "history", NULL};
    static const char *const client_keys[] = {"name",     "role",       "state", "last_seen_ms",
                                              "batch",    "batches",    "loss",  "images_per_second",
                                              "bytes_up", "bytes_down", NULL};
    static const char *const bank_keys[] = {"rows", "capacity", "contributors", NULL};
    static const char *const round_keys[] = {"round", "seconds", "accepted", "declined", "loss", NULL};
    assert_keys(object, keys);
    json_t *north = json_array_get(json_object_get(object, "clients"), 0);
    assert_keys(north, client_keys);
    assert_keys(json_object_get(object, "bank"), bank_keys);
    assert_keys(json_array_get(json_object_get(object, "history"), 0), round_keys);
    assert_int_equal(json_integer_value(json_object_get(north, "batch")), 3);
    assert_int_equal(json_integer_value(json_object_get(north, "batches")), 12);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(north, "bytes_by_kind"), "update")), 800);
    /* A client that has not trained has no loss, which is not the same as a loss of 0. */
    json_t *south = json_array_get(json_object_get(object, "clients"), 1);
    assert_true(json_is_null(json_object_get(south, "loss")));
    json_t *strangers = json_object_get(object, "strangers");
    assert_int_equal(json_integer_value(json_object_get(strangers, "refused")), 7);
    json_decref(object);
    struct msg_status_reply earlier = reply;
    earlier.strangers.told = false;
    object = status_json(&earlier);
    assert_true(json_is_null(json_object_get(object, "strangers")));
    json_decref(object);
}

static void status_json_survives_what_is_not_finite(void **state)
{
    (void)state;
    struct status_round odd = rounds[0];
    odd.loss = (double)NAN;
    struct msg_status_reply copy = reply;
    copy.history = &odd;
    json_t *object = status_json(&copy);
    assert_non_null(object);
    assert_true(json_is_null(json_object_get(json_array_get(json_object_get(object, "history"), 0), "loss")));
    json_decref(object);
}

static void status_text_shows_waits_and_clients(void **state)
{
    (void)state;
    struct buf text;
    buf_init(&text, 1 << 16);
    assert_int_equal(status_text(&reply, &text), 0);
    assert_int_equal(buf_append(&text, "", 1), 0);
    const char *out = (const char *)text.data;
    assert_non_null(strstr(out, "waits for  2 of 5 clients (5.0 s so far, 60 s left)\n"));
    assert_non_null(strstr(out, "strangers  7 connections refused, 2 slowed\n"));
    assert_non_null(strstr(out, "3/12"));
    assert_non_null(strstr(strstr(out, "south"), "offline"));
    buf_fini(&text);
}

static void a_round_is_one_line(void **state)
{
    (void)state;
    struct buf line;
    buf_init(&line, 4096);
    struct status_round round = rounds[0];
    round.round = 3;
    round.accepted = 5;
    round.declined = 0;
    round.seconds = 12.34;
    assert_int_equal(demo_round_line(&round, 10, 5, &line), 0);
    assert_int_equal(buf_append(&line, "", 1), 0);
    assert_string_equal((const char *)line.data,
                        "round  3/10  5 of 5 clients  loss 4.21 (contrast 4.10, matching 0.11)  remote negatives 50 %  "
                        "12.3 s  up 1.2 MB down 3.4 MB");
    buf_fini(&line);
}

static void demo_json_has_exactly_the_promised_keys(void **state)
{
    (void)state;
    static const char *const keys[] = {"rounds",
                                       "clients",
                                       "images",
                                       "seconds",
                                       "knn_top1",
                                       "knn_top1_untrained",
                                       "knn_top1_midway",
                                       "linear_top1",
                                       "linear_top1_untrained",
                                       "knn_top1_pixels",
                                       "model",
                                       "workdir",
                                       "bytes_up",
                                       "bytes_down",
                                       "server_peak_rss_bytes",
                                       NULL};
    struct demo *demo = mem_new(1, sizeof *demo);
    assert_non_null(demo);
    demo->rounds = rounds;
    demo->rounds_closed = 1;
    demo->options.clients = 5;
    demo->scores = (struct demo_scores){.knn = 0.5, .linear = (double)NAN};
    (void)strcpy(demo->workdir, "work");
    json_t *object = demo_json(demo);
    assert_non_null(object);
    assert_keys(object, keys);
    assert_int_equal(json_object_size(object), sizeof keys / sizeof keys[0] - 1);
    assert_true(json_is_null(json_object_get(object, "linear_top1")));
    assert_string_equal(json_string_value(json_object_get(object, "model")),
                        "work/server/models/round-000001.starling");
    assert_int_equal(json_integer_value(json_object_get(object, "bytes_up")), 1200000);
    json_decref(object);
    mem_free(demo);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantities_read_well),
        cmocka_unit_test(npy_header_is_what_numpy_reads),
        cmocka_unit_test(inspect_tells_every_tensor),
        cmocka_unit_test(status_json_has_the_promised_keys),
        cmocka_unit_test(status_json_survives_what_is_not_finite),
        cmocka_unit_test(status_text_shows_waits_and_clients),
        cmocka_unit_test(a_round_is_one_line),
        cmocka_unit_test(demo_json_has_exactly_the_promised_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
