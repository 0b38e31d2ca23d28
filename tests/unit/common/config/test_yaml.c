/* The YAML reader: sections and dotted keys, every refusal with its line and column, hostile files, and that a printed
 * set reads back the same. */
#include "common/base/mem.h"
#include "common/config/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* As a server has it: options of its own, and the plan below "plan". */
struct server {
    char listen[64];
    uint64_t idle_timeout_ms;
    uint32_t upload_slots, capacity;
    struct plan plan;
};
static const struct option server_options[] = {
    {"listen", OPTION_TEXT, .offset = offsetof(struct server, listen), .size = 64, .standard = "127.0.0.1:7350",
     .help = "Where to listen."},
    {"idle_timeout", OPTION_DURATION, .offset = offsetof(struct server, idle_timeout_ms), .least = 1000,
     .most = 3600000, .standard = "30s", .help = "A peer that says nothing for this long is gone."},
    {"upload_slots", OPTION_U32, .offset = offsetof(struct server, upload_slots), .least = 1, .most = 64,
     .standard = "4", .help = "Uploads at a time."},
    {"bank.capacity", OPTION_U32, .offset = offsetof(struct server, capacity), .least = 1, .most = 1000000,
     .standard = "65536", .help = "Rows of the feature bank."},
};
static struct option_table tables[2];
static struct option_set set = {.tables = tables, .count = 2};

static int set_up(void **state)
{
    (void)state;
    tables[0] = (struct option_table){.prefix = "", .options = server_options, .count = 4};
    tables[1] = (struct option_table){
        .prefix = "plan", .base = offsetof(struct server, plan), .options = plan_options, .count = plan_options_count};
    return 0;
}

static int parse(const char *text, struct server *server, struct err *err)
{
    size_t len = strlen(text);
    uint8_t *copy = mem_new(len, 1); /* exactly as long as the text, for the sanitizer */
    memcpy(copy, text, len);
    int rc = config_parse(&set, "server.yaml", copy, len, server, err);
    mem_free(copy);
    return rc;
}

static void accept(const char *text, struct server *server)
{
    struct err err;
    memset(server, 0, sizeof *server);
    config_defaults(&set, server);
    if (parse(text, server, &err)) {
        fail_msg("%s", err.text);
    }
}

static void test_accepted(void **state)
{
    (void)state;
    struct server server;
    accept("# a comment\nlisten: 0.0.0.0:9\nbank:\n  capacity: 5\nplan:\n  rounds: 3\n  model:\n    blocks: [1, 2]\n"
           "    width: 8\n  fusion: {enabled: false, share: 1}\n",
           &server);
    assert_string_equal(server.listen, "0.0.0.0:9");
    assert_int_equal(server.capacity, 5);
    assert_int_equal(server.plan.rounds, 3);
    assert_int_equal(server.plan.model.stages, 2);
    assert_int_equal(server.plan.model.blocks[1], 2);
    assert_int_equal(server.plan.model.blocks[2], 0); /* of the default nothing is left */
    assert_int_equal(server.plan.model.width, 8);
    assert_false(server.plan.fusion.enabled);
    assert_true(server.plan.fusion.share == 1);
    assert_int_equal(server.upload_slots, 4); /* what the file does not name stays */
    accept("plan:\n  model:\n    blocks:\n    - 3\n    - 4\n", &server);
    assert_int_equal(server.plan.model.blocks[0], 3);
    assert_int_equal(server.plan.model.stages, 2);
    accept("plan.model.width: 16\nplan.rounds: 9\nplan:\n  model.input: 64\n", &server);
    assert_int_equal(server.plan.model.width, 16);
    assert_int_equal(server.plan.rounds, 9);
    assert_int_equal(server.plan.model.input, 64);
    accept("listen: \"a \\\"b\\\"\"\n", &server);
    assert_string_equal(server.listen, "a \"b\"");
    accept("listen: 'true'\n", &server);
    assert_string_equal(server.listen, "true");
    accept("listen: 12\n", &server); /* the table says text, so it is text */
    assert_string_equal(server.listen, "12");
    accept("{\"upload_slots\": 3, plan: {\"rounds\": 4}}", &server);
    assert_int_equal(server.upload_slots, 3);
    assert_int_equal(server.plan.rounds, 4);
}

static void test_nothing(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        "\n",
                                        "# only\n# comments\n",
                                        "---\n",
                                        "{}",
                                        "plan:\n",
                                        "plan:\n  model:\n",
                                        "---\nplan:\n  # rounds: 3\nbank: {}\n...\n",
                                        "\xef\xbb\xbf# mark\n"};
    struct server defaults, server;
    memset(&defaults, 0, sizeof defaults);
    config_defaults(&set, &defaults);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        accept(texts[i], &server);
        assert_memory_equal(&server, &defaults, sizeof server);
    }
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        /* unknown keys: the nearest in the section, the same name elsewhere, none */
        {"plan:\n  min_client: 2\n", "server.yaml:2:3: unknown key \"min_client\"; did you mean \"min_clients\"?"},
        {"plan:\n  rounds: 2\n  modle: {}\n", "server.yaml:3:3: unknown key \"modle\"; did you mean \"model\"?"},
        {"rounds: 2\n", "server.yaml:1:1: unknown key \"rounds\"; did you mean \"plan.rounds\"?"},
        {"plan:\n  widht: 2\n", "server.yaml:2:3: unknown key \"widht\""},
        {"plan:\n  width: 2\n", "server.yaml:2:3: unknown key \"width\"; did you mean \"plan.model.width\"?"},
        {"plan.model.widht: 2\n",
         "server.yaml:1:1: unknown key \"plan.model.widht\"; did you mean \"plan.model.width\"?"},
        {"quite_different: 2\n", "server.yaml:1:1: unknown key \"quite_different\""},
        {"\"\": 2\n", "server.yaml:1:1: unknown key \"\""},
        {"<<: 2\n", "server.yaml:1:1: unknown key \"<<\""},
        {"? [a]\n: 2\n", "server.yaml:1:3: a key is expected"},
        {"\"listen\\0x\": a\n", "server.yaml:1:1: a key is expected"},
        /* values */
        {"plan:\n  rounds: many\n", "server.yaml:2:11: plan.rounds: \"many\" is no whole number from 1 to 1000000"},
        {"plan: {rounds: 0}\n", "server.yaml:1:16: plan.rounds: \"0\" is no whole number from 1 to 1000000"},
        {"plan: {rounds: \"5\"}\n", "server.yaml:1:16: plan.rounds: \"5\" stands in quotes, and is no text"},
        {"plan: {learning_rate: 11}\n", "server.yaml:1:23: plan.learning_rate: \"11\" is no number from 0 to 10"},
        {"plan: {model: {stem: huge}}\n", "server.yaml:1:22: plan.model.stem: \"huge\" is none of small, large"},
        {"idle_timeout: 1ms\n", "server.yaml:1:15: idle_timeout: \"1ms\" is no duration from 1s to 1h"},
        {"listen:\n", "server.yaml:1:8: listen: the value is missing"},
        {"listen: \"a\\0b\"\n", "server.yaml:1:9: listen: \"a\" is no printable text of at most 63 bytes"},
        {"listen: {a: b}\n", "server.yaml:1:9: listen: a single value is expected"},
        {"plan:\n  rounds: [1]\n", "server.yaml:2:11: plan.rounds: a single value is expected"},
        {"plan: 3\n", "server.yaml:1:7: \"plan\" is a section; its keys stand indented below it"},
        {"plan:\n- rounds\n", "server.yaml:2:1: \"plan\" is a section; its keys stand indented below it"},
        {"plan: {model: {blocks: 3}}\n", "server.yaml:1:24: plan.model.blocks: a list such as [2, 2] is expected"},
        {"plan: {model: {blocks: []}}\n",
         "server.yaml:1:24: plan.model.blocks: \"[]\" is no list of 1 to 4 numbers from 1 to 64"},
        {"plan: {model: {blocks: [1, 1, 1, 1, 1]}}\n", "server.yaml:1:37: plan.model.blocks: more than 4 elements"},
        {"plan: {model: {blocks: [1, [2]]}}\n", "server.yaml:1:28: a number is expected"},
        {"plan: {model: {blocks: [1, 0]}}\n",
         "server.yaml:1:28: plan.model.blocks: \"0\" is no list of 1 to 4 numbers from 1 to 64"},
        /* twice */
        {"listen: a\nlisten: b\n", "server.yaml:2:1: key \"listen\" is given twice, first in line 1"},
        {"plan:\n  rounds: 1\nplan:\n  seed: 1\n", "server.yaml:3:1: section \"plan\" is given twice"},
        {"plan:\n  model: {width: 8}\n  model: {input: 8}\n", "server.yaml:3:3: section \"plan.model\" is given twice"},
        {"plan:\n  rounds: 1\nplan.rounds: 1\n",
         "server.yaml:3:1: key \"plan.rounds\" is given twice, first in line 2"},
        /* the finer arts of YAML */
        {"listen: &a b\n", "server.yaml:1:9: anchors and aliases (& and *) are not allowed here"},
        {"plan: &a {rounds: 1}\n", "server.yaml:1:7: anchors and aliases (& and *) are not allowed here"},
        {"listen: *a\n", "server.yaml:1:9: anchors and aliases (& and *) are not allowed here"},
        {"plan: {model: {blocks: &a [1]}}\n", "server.yaml:1:24: anchors and aliases (& and *) are not allowed here"},
        {"listen: !!str b\n", "server.yaml:1:9: tags (!) are not allowed here"},
        {"--- !x\nlisten: b\n", "server.yaml:1:5: tags (!) are not allowed here"},
        {"listen: b\n---\nlisten: c\n", "server.yaml:2:1: a second document is not allowed here"},
        {"- listen\n", "server.yaml:1:1: lines of the form \"key: value\" are expected"},
        {"just text\n", "server.yaml:1:1: lines of the form \"key: value\" are expected"},
        {"plan:\n\trounds: 3\n", "server.yaml:2:1: found character that cannot start any token"},
        {"plan: {rounds: 3\n", "server.yaml:2:1: did not find expected ',' or '}'"},
        {"listen: \"open\n", "server.yaml:2:1: found unexpected end of stream"},
        {"# line\nlisten: a\xff\n", "server.yaml:2:10: invalid leading UTF-8 octet"},
        {"listen: a\x01\n", "server.yaml:1:10: control characters are not allowed"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct server server;
        struct err err = {0};
        config_defaults(&set, &server);
        assert_int_equal(parse(rows[i][0], &server, &err), ERR_CONFIG);
        assert_string_equal(err.text, rows[i][1]);
        assert_int_equal(parse(rows[i][0], &server, NULL), ERR_CONFIG);
    }
}

static void test_sections_by_flag(void **state)
{
    (void)state;
    struct server server;
    struct err err;
    config_defaults(&set, &server);
    assert_int_equal(config_set(&set, "--set", "plan.model.blocks", "1,1", &server, &err), 0);
    assert_int_equal(server.plan.model.stages, 2);
    assert_int_equal(config_set(&set, "--set", "plan.model", "1", &server, &err), ERR_CONFIG);
    assert_string_equal(err.text, "--set: \"plan.model\" is a section; name a key in it, such as \"plan.model.block\"");
    assert_int_equal(config_set(&set, "--set", "plan.fusion.encoder", "agregated", &server, &err), ERR_CONFIG);
    assert_int_equal(config_set(&set, "--set", "rounds", "1", &server, &err), ERR_CONFIG);
    assert_string_equal(err.text, "--set: unknown key \"rounds\"; did you mean \"plan.rounds\"?");
}

/* Neither depth nor size costs memory: the first unknown key ends it, and a file past the limit is not begun. */
static void test_hostile_files(void **state)
{
    (void)state;
    enum { LEN = 1 << 20 };
    struct server server;
    struct err err;
    char *text = mem_new(LEN + 2, 1);
    config_defaults(&set, &server);
    static const char *const repeated[] = {"[", "{", "{plan: ", "- ", "a: ", "? ", "\"", "&", "[1, "};
    for (size_t r = 0; r < sizeof repeated / sizeof repeated[0]; r++) {
        size_t unit = strlen(repeated[r]);
        for (size_t i = 0; i + unit <= 65536; i += unit) {
            memcpy(text + i, repeated[r], unit);
        }
        text[65536] = '\0';
        assert_int_equal(parse(text, &server, &err), ERR_CONFIG);
    }
    memset(text, '#', LEN + 1);
    text[LEN + 1] = '\0';
    assert_int_equal(parse(text, &server, &err), ERR_CONFIG);
    assert_string_equal(err.text, "server.yaml: larger than 1 MiB");
    text[LEN] = '\0';
    assert_int_equal(parse(text, &server, &err), 0);
    /* A long unknown key is cut in the message. */
    memset(text, 'k', 1000);
    memcpy(text + 1000, ": 1\n", 5);
    assert_int_equal(parse(text, &server, &err), ERR_CONFIG);
    assert_true(strlen(err.text) < 120);
    mem_free(text);
    mem_fail_after(1);
    assert_int_equal(config_parse(&set, "server.yaml", (const uint8_t *)"", 0, &server, &err), ERR_NOMEM);
    mem_fail_after(0);
}

/* With and without comments, for defaults and for values that are odd in every place. */
static void test_print_reads_back(void **state)
{
    (void)state;
    struct server server, back;
    struct buf out;
    memset(&server, 0, sizeof server);
    memset(&back, 0, sizeof back);
    config_defaults(&set, &server);
    for (int round = 0; round < 4; round++) {
        if (round >= 2) {
            memset(server.listen, 0, sizeof server.listen);
            memcpy(server.listen, "# \\ \" : {", 9);
            server.plan.learning_rate = 1.0 / 3;
            server.plan.weight_decay = 1e-5;
            server.plan.seed = UINT64_MAX;
            server.plan.round_deadline_ms = 90001;
            server.plan.model.stages = 1;
            memset(server.plan.model.blocks + 1, 0, 12);
            server.plan.augment.flip = false;
        }
        buf_init(&out, 65536);
        assert_int_equal(config_print(&set, &server, round % 2, &out), 0);
        struct err err;
        if (config_parse_complete(&set, "printed", out.data, out.len, &back, &err)) {
            fail_msg("%s", err.text);
        }
        assert_memory_equal(&back, &server, sizeof back);
        buf_fini(&out);
    }
    for (size_t max = 0; max < 2000; max += 13) {
        buf_init(&out, max);
        assert_int_equal(config_print(&set, &server, true, &out), ERR_LIMIT);
        buf_fini(&out);
    }
}

static void test_print_form(void **state)
{
    (void)state;
    struct server server;
    struct buf out;
    config_defaults(&set, &server);
    tables[1].count = 1; /* of the plan only the rounds, to keep this readable */
    buf_init(&out, 65536);
    assert_int_equal(config_print(&set, &server, false, &out), 0);
    static const char plain[] =
        "listen: \"127.0.0.1:7350\"\nidle_timeout: 30s\nupload_slots: 4\nbank:\n  capacity: 65536\n"
        "plan:\n  rounds: 50\n";
    assert_int_equal(out.len, sizeof plain - 1);
    assert_memory_equal(out.data, plain, out.len);
    out.len = 0;
    assert_int_equal(config_print(&set, &server, true, &out), 0);
    static const char sample[] =
        "# Where to listen.\n# (at most 63 bytes; default 127.0.0.1:7350)\nlisten: \"127.0.0.1:7350\"\n"
        "# A peer that says nothing for this long is gone.\n# (1s to 1h; default 30s)\nidle_timeout: 30s\n"
        "# Uploads at a time.\n# (1 to 64; default 4)\nupload_slots: 4\n"
        "bank:\n  # Rows of the feature bank.\n  # (1 to 1000000; default 65536)\n  capacity: 65536\n"
        "plan:\n  # Rounds in all.\n  # (1 to 1000000; default 50)\n  rounds: 50\n";
    assert_int_equal(out.len, sizeof sample - 1);
    assert_memory_equal(out.data, sample, out.len);
    buf_fini(&out);
    tables[1].count = plan_options_count;
}

static int tell(void *arg, const char *where, const char *key, const char *value, struct err *err)
{
    (void)err;
    return buf_printf(arg, "%s %s=%s\n", where, key, value ? value : "(map)");
}

static void test_leaves(void **state)
{
    (void)state;
    static const struct {
        const char *text, *leaves, *refusal;
    } cases[] = {
        {"a: 1\nb:\n  c: [x, 'y z']\n  d: {}\n  e: {f.g: \"\"}\n",
         "f:1:4 a=1\nf:3:3 b=(map)\nf:3:6 b.c=[x, y z]\nf:4:6 b.d=(map)\nf:5:6 b.e=(map)\nf:5:12 b.e.f.g=\n", NULL},
        {"# nothing\n", "", NULL},
        {"a: 1\nb: {c: 1}\na: 2\n", NULL, "f:3:1: key \"a\" is given twice"},
        {"b: {c: 1}\nb.c: 2\n", NULL, "f:2:1: key \"b.c\" is given twice"},
        {"a: &x 1\n", NULL, "f:1:4: anchors and aliases"},
        {"a: [[1]]\n", NULL, "f:1:5: a single value"},
        {"a: {b: {c: {d: {e: {f: {g: {h: {i: {j: 1}}}}}}}}}\n", NULL, "too deep"},
        {"[1]: 2\n", NULL, "f:1:1: a key is expected"},
        {"- 1\n", NULL, "key: value"},
        {"a: \"x\\ny\"\n", NULL, "a single value"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf out;
        struct err err = {0};
        buf_init(&out, 4096);
        int rc = config_leaves("f", (const uint8_t *)cases[i].text, strlen(cases[i].text), tell, &out, &err);
        if (cases[i].refusal) {
            assert_int_equal(rc, ERR_CONFIG);
            assert_non_null(strstr(err.text, cases[i].refusal));
        } else {
            assert_int_equal(rc, 0);
            assert_int_equal(buf_append(&out, "", 1), 0);
            assert_string_equal((const char *)out.data, cases[i].leaves);
        }
        buf_fini(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepted),      cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_refused),       cmocka_unit_test(test_sections_by_flag),
        cmocka_unit_test(test_hostile_files), cmocka_unit_test(test_print_reads_back),
        cmocka_unit_test(test_print_form),    cmocka_unit_test(test_leaves),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
