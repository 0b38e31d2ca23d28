/* The plan: its keys and defaults, the canonical form, what is refused, and how two plans differ. */
#include "common/base/mem.h"
#include "common/config/plan.h"
#include "common/vec/fixed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void standard(struct plan *plan)
{
    memset(plan, 0, sizeof *plan);
    config_defaults(&plan_set, plan);
}

/* The contract of names: every key with its default, in the canonical order. Checks and users' files depend on it, and
 * so do the hashes of runs that exist: keys that came later do not stand here. */
static const char canonical[] = "rounds: 50\nmin_clients: 2\nclients_per_round: 0\nround_deadline: 30m\nseed: 1\n"
                                "local_epochs: 1\nlocal_steps: 0\nbatch: 128\nbn_groups: 4\nlearning_rate: 0.06\n"
                                "sgd_momentum: 0.9\nweight_decay: 0.0005\ntemperature: 0.1\nkey_momentum: 0.99\n"
                                "queue: 4096\nweight_cap: 1000000\n"
                                "model:\n  block: basic\n  blocks: [2, 2, 2, 2]\n  width: 64\n  stem: small\n"
                                "  input: 32\n  features: 128\n"
                                "fusion:\n  enabled: true\n  remote: 2048\n  share: 0.5\n  upload: 2048\n"
                                "  encoder: momentum\n"
                                "matching:\n  enabled: true\n  form: positives\n  neighbours: 5\n  weight: 0.2\n"
                                "  temperature: 0.1\n  start_round: 15\n  ramp_rounds: 5\n"
                                "augment:\n  crop_least: 0.2\n  jitter: 0.4\n  jitter_probability: 0.8\n"
                                "  grey_probability: 0.2\n  blur_probability: 0\n  flip: true\n";

static void test_canonical(void **state)
{
    (void)state;
    struct plan plan;
    struct buf out;
    standard(&plan);
    buf_init(&out, 65536);
    assert_int_equal(plan_check(&plan, NULL), 0);
    assert_int_equal(plan_encode(&plan, &out), 0);
    assert_int_equal(out.len, sizeof canonical - 1);
    assert_memory_equal(out.data, canonical, out.len);
    struct hash128 hash = plan_hash(out.data, out.len), same = hash_of(canonical, sizeof canonical - 1);
    assert_true(hash_equal(&hash, &same));
    struct plan back;
    memset(&back, 0xee, sizeof back);
    assert_int_equal(plan_decode(out.data, out.len, &back, NULL), 0);
    assert_memory_equal(&back, &plan, sizeof back);
    buf_fini(&out);
}

/* A key that was added later is written when it says something, with its section, and read back. */
static void test_added_keys(void **state)
{
    (void)state;
    struct plan plan, back;
    struct buf out;
    standard(&plan);
    plan.aggregation.optimizer = AGGREGATION_MOMENTUM;
    plan.aggregation.momentum = 0.5;
    buf_init(&out, 65536);
    assert_int_equal(plan_encode(&plan, &out), 0);
    assert_int_equal(buf_append(&out, "", 1), 0);
    assert_non_null(strstr((const char *)out.data, "weight_cap: 1000000\n"
                                                   "aggregation:\n  optimizer: momentum\n  momentum: 0.5\nmodel:\n"));
    memset(&back, 0xee, sizeof back);
    assert_int_equal(plan_decode(out.data, out.len - 1, &back, NULL), 0);
    assert_memory_equal(&back, &plan, sizeof back);
    buf_fini(&out);
    for (uint64_t n = 1; n <= 3; n++) { /* want of memory must not make other bytes */
        buf_init(&out, 65536);
        mem_fail_after(n);
        int rc = plan_encode(&plan, &out);
        mem_fail_after(0);
        assert_int_equal(rc, ERR_NOMEM);
        buf_fini(&out);
    }
}

/* Keys of a section within a section. */
static void test_nested_keys(void **state)
{
    (void)state;
    struct plan plan, back;
    struct buf out;
    standard(&plan);
    plan.fusion.ttl = 7;
    plan.fusion.privacy.noise = 0.5;
    buf_init(&out, 65536);
    assert_int_equal(plan_encode(&plan, &out), 0);
    assert_int_equal(buf_append(&out, "", 1), 0);
    assert_non_null(
        strstr((const char *)out.data, "  encoder: momentum\n  ttl: 7\n  privacy:\n    noise: 0.5\nmatching:\n"));
    assert_int_equal(plan_decode(out.data, out.len - 1, &back, NULL), 0);
    assert_memory_equal(&back, &plan, sizeof back);
    buf_fini(&out);
}

static int count_arrows(const struct buf *text)
{
    int count = 0;
    for (size_t i = 0; i < text->len; i++) {
        count += text->data[i] == '>';
    }
    return count;
}

/* Each option at both ends of its bounds: the canonical form brings it back, and no two options share memory. */
static void test_every_option(void **state)
{
    (void)state;
    for (size_t i = 0; i < plan_options_count; i++) {
        const struct option *option = &plan_options[i];
        char values[2][32] = {"true", "false"};
        if (option->type == OPTION_CHOICE) {
            (void)snprintf(values[0], 32, "%s", option->choices[0]);
            (void)snprintf(values[1], 32, "%s", option->choices[1]);
        } else if (option->type != OPTION_BOOL) {
            const char *unit = option->type == OPTION_DURATION ? "ms" : "";
            (void)snprintf(values[0], 32, option->type == OPTION_F64 ? "%.17g%s" : "%.0f%s", option->least, unit);
            (void)snprintf(values[1], 32, option->type == OPTION_F64 ? "%.17g%s" : "%.0f%s",
                           option->most < 0x1p64 ? option->most : 0x1.fffffffffffffp63, unit);
        }
        int differing = 0;
        for (int v = 0; v < 2; v++) {
            struct plan plan, back;
            struct buf text, difference;
            struct err err;
            standard(&plan);
            if (config_set(&plan_set, "--set", option->key, values[v], &plan, &err)) {
                fail_msg("%s", err.text);
            }
            buf_init(&text, 65536);
            buf_init(&difference, 4096);
            assert_int_equal(plan_encode(&plan, &text), 0);
            memset(&back, 0, sizeof back); /* plan_check must not have its say */
            assert_int_equal(config_parse_complete(&plan_set, "plan", text.data, text.len, &back, &err), 0);
            assert_memory_equal(&back, &plan, sizeof back);
            standard(&back);
            assert_int_equal(plan_difference(&back, &plan, &difference), 0);
            /* At most this option differs from the defaults, and at one end of its bounds it must. */
            char want[64];
            int head = snprintf(want, sizeof want, "%s: ", option->key);
            assert_true(difference.len == 0 || memcmp(difference.data, want, (size_t)head) == 0);
            assert_true(difference.len == 0 || count_arrows(&difference) == 1);
            differing += difference.len > 0;
            buf_fini(&text);
            buf_fini(&difference);
        }
        assert_true(differing > 0);
        assert_true(strlen(option->help) > 0 && option->standard);
    }
}

static void refuse(const char *text, size_t len, const char *reason)
{
    struct plan plan;
    struct err err;
    assert_int_equal(plan_decode((const uint8_t *)text, len, &plan, &err), ERR_CONFIG);
    if (!strstr(err.text, reason)) {
        fail_msg("\"%s\" does not say \"%s\"", err.text, reason);
    }
}

/* Without any one of its lines the plan is refused, with the key named; so is one with a line too many. */
static void test_decode_is_strict(void **state)
{
    (void)state;
    char text[2 * sizeof canonical];
    int missing = 0, added = 0;
    for (const char *line = canonical; *line;) {
        const char *end = strchr(line, '\n') + 1;
        size_t before = (size_t)(line - canonical);
        if (end[-2] != ':') { /* not a section's header */
            memcpy(text, canonical, before);
            memcpy(text + before, end, strlen(end) + 1);
            refuse(text, strlen(text), "is missing");
            missing++;
        }
        line = end;
    }
    for (size_t i = 0; i < plan_options_count; i++) {
        added += plan_options[i].added;
    }
    assert_int_equal(missing + added, plan_options_count);
    (void)snprintf(text, sizeof text, "%scompress: zstd\n", canonical);
    refuse(text, strlen(text), "unknown key \"compress\"");
    (void)snprintf(text, sizeof text, "%srounds: 50\n", canonical);
    refuse(text, strlen(text), "twice");
    refuse("", 0, "\"rounds\" is missing");
    refuse("\xff\xfe\x00\x00", 4, "plan");
    for (size_t len = 0; len < sizeof canonical - 2; len++) { /* the last line needs no newline, but its last letter */
        struct plan plan;
        assert_int_not_equal(plan_decode((const uint8_t *)canonical, len, &plan, NULL), 0);
    }
    /* Bounds and plan_check hold here too: the plan comes from a peer. */
    (void)snprintf(text, sizeof text, "%s", canonical);
    memcpy(strstr(text, "bn_groups: 4"), "bn_groups: 3", 12);
    refuse(text, strlen(text), "plan: bn_groups");
    memcpy(strstr(text, "rounds: 50"), "rounds: 00", 10);
    refuse(text, strlen(text), "plan:1:9: rounds");
}

static void check_refused(const struct plan *plan, const char *sentence)
{
    struct err err;
    assert_int_equal(plan_check(plan, &err), ERR_CONFIG);
    assert_string_equal(err.text, sentence);
    assert_int_equal(plan_check(plan, NULL), ERR_CONFIG);
}

static void test_check(void **state)
{
    (void)state;
    struct plan plan;
    standard(&plan);
    plan.min_clients = 5;
    plan.clients_per_round = 4;
    check_refused(&plan, "clients_per_round: 4 is less than min_clients, 5");
    plan.clients_per_round = 5;
    assert_int_equal(plan_check(&plan, NULL), 0);
    standard(&plan);
    plan.bn_groups = 3;
    check_refused(&plan, "bn_groups: a batch of 128 makes no 3 equal groups of two images or more");
    plan.bn_groups = 128;
    check_refused(&plan, "bn_groups: a batch of 128 makes no 128 equal groups of two images or more");
    plan.queue = 1 << 20;
    plan.model.features = 257;
    plan.bn_groups = 4;
    check_refused(&plan, "queue: 1048576 rows of model.features, 257, are more than 1 GiB; lower either");
    plan.queue = 4096;
    plan.fusion.upload = 1 << 20;
    check_refused(&plan, "fusion.upload: 1048576 rows of model.features, 257, are more than 1 GiB; lower either");
    plan.model.features = 128;
    plan.bn_groups = 0;
    check_refused(&plan, "bn_groups: a batch of 128 makes no 0 equal groups of two images or more");
    plan.bn_groups = 64;
    assert_int_equal(plan_check(&plan, NULL), 0);
    standard(&plan);
    plan.weight_cap = FIXED_WEIGHT_MAX;
    assert_int_equal(plan_check(&plan, NULL), 0);
    plan.weight_cap = FIXED_WEIGHT_MAX + 1;
    check_refused(&plan, "weight_cap: 67108865 is more than 67108864");
    standard(&plan);
    plan.fusion.min_contributors = plan.fusion.remote + 1;
    check_refused(&plan, "fusion.min_contributors: 2049 clients cannot have part in fusion.remote, 2048 rows");
    standard(&plan);
    plan.update.privacy.noise = 1;
    check_refused(&plan,
                  "update.privacy.noise: noise for updates of any length protects none; set update.privacy.clip");
    plan.update.privacy.clip = 1;
    assert_int_equal(plan_check(&plan, NULL), 0);
    plan.update.privacy.noise = 0.0005;
    check_refused(&plan, "update.privacy.noise: 0.0005 protects nobody; 0, or 0.001 and more");
    plan.update.privacy.noise = 0;
    plan.fusion.privacy.noise = 1e-9;
    check_refused(&plan, "fusion.privacy.noise: 1e-09 protects nobody; 0, or 0.001 and more");
    standard(&plan);
    plan.model.block = MODEL_BLOCK_BOTTLENECK;
    assert_int_equal(plan_check(&plan, NULL), 0);
    standard(&plan);
    plan.model.stem = MODEL_STEM_LARGE;
    plan.model.input = 16;
    check_refused(&plan, "model: an input of 16 pixels is too small for 4 stages");
    standard(&plan);
    mem_fail_after(1);
    assert_int_equal(plan_check(&plan, NULL), ERR_NOMEM);
    mem_fail_after(0);
}

static void check_difference(const struct plan *from, const struct plan *to, const char *want)
{
    struct buf out;
    buf_init(&out, 4096);
    assert_int_equal(plan_difference(from, to, &out), 0);
    assert_int_equal(buf_append(&out, "", 1), 0);
    assert_string_equal((const char *)out.data, want);
    for (size_t max = 0; max < strlen(want); max += 5) {
        struct buf small;
        buf_init(&small, max);
        assert_int_equal(plan_difference(from, to, &small), ERR_LIMIT);
        buf_fini(&small);
    }
    buf_fini(&out);
}

static void test_difference(void **state)
{
    (void)state;
    struct plan a, b;
    standard(&a);
    standard(&b);
    check_difference(&a, &b, "");
    b.rounds = 80;
    b.learning_rate = 0.03;
    b.model.stages = 2;
    b.model.blocks[2] = b.model.blocks[3] = 0;
    b.fusion.encoder = FUSION_ENCODER_AGGREGATED;
    check_difference(&a, &b,
                     "rounds: 50 -> 80, learning_rate: 0.06 -> 0.03, model.blocks: [2, 2, 2, 2] -> [2, 2], "
                     "fusion.encoder: momentum -> aggregated");
    check_difference(&b, &a,
                     "rounds: 80 -> 50, learning_rate: 0.03 -> 0.06, model.blocks: [2, 2] -> [2, 2, 2, 2], "
                     "fusion.encoder: aggregated -> momentum");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_canonical),        cmocka_unit_test(test_added_keys),
        cmocka_unit_test(test_nested_keys),      cmocka_unit_test(test_every_option),
        cmocka_unit_test(test_decode_is_strict), cmocka_unit_test(test_check),
        cmocka_unit_test(test_difference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
