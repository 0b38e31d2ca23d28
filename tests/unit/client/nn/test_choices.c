/* What was measured survives as text, other machines' text does not count, and the fastest right method wins. */
#include "tests/unit/client/nn/net_support.h"

static const struct conv_shape shape = {{2, 16, 8, MAP_BLOCKS, MAP_F32}, {2, 16, 8, MAP_BLOCKS, MAP_F32}, 3, 1};

static enum conv_method best(const double times[3], enum map_type type, bool winograd, double *ns)
{
    struct choice choice = {0};
    memcpy(choice.time[type], times, sizeof choice.time[type]);
    choice.time[!type][CONV_WINOGRAD2] = 1; /* the other type's times are another's business */
    return choice_best(&choice, type, winograd, ns);
}

static void the_fastest_right_method_wins(void **state)
{
    (void)state;
    double ns;
    for (enum map_type type = MAP_F32; type <= MAP_BF16; type++) {
        assert_int_equal(best((const double[]){100, 90, 80}, type, true, &ns), CONV_WINOGRAD4);
        assert_true(ns == 80);
        assert_int_equal(best((const double[]){100, 70, 80}, type, true, &ns), CONV_WINOGRAD2);
        assert_int_equal(best((const double[]){100, 70, 80}, type, false, &ns), CONV_DIRECT);
        assert_true(ns == 100);
        assert_int_equal(best((const double[]){100, 98, 99}, type, true, &ns), CONV_DIRECT); /* not clearly faster */
        assert_int_equal(best((const double[]){100, 0, 0}, type, true, &ns), CONV_DIRECT);
        assert_int_equal(best((const double[]){0, 0, 80}, type, true, &ns), CONV_WINOGRAD4); /* direct was not right */
        (void)best((const double[]){0, 0, 0}, type, true, &ns);
        assert_true(ns == 0);
    }
}

static char *text_of(const struct choices *choices)
{
    struct buf buf;
    buf_init(&buf, 1 << 16);
    assert_int_equal(choices_text(choices, &buf), 0);
    char *text = mem_text((const char *)buf.data, buf.len);
    buf_fini(&buf);
    assert_non_null(text);
    return text;
}

static void text_comes_back(void **state)
{
    (void)state;
    struct choice all[2] = {{shape, CONV_BACKWARD_DATA, {{11, 12, 13}, {14, 15, 16}}},
                            {shape, CONV_FORWARD, {{21, 0, 23}, {0, 0, 0}}}};
    all[1].shape.src = (struct map){2, 3, 16, MAP_PLANES, MAP_F32};
    all[1].shape.stride = 2;
    const struct choices kept = {.all = all, .count = 2};
    struct choices got = {0};
    char *text = text_of(&kept);
    assert_int_equal(choices_parse(&got, text, NULL), 0);
    assert_int_equal(choices_parse(&got, text, NULL), 0); /* twice is once */
    assert_int_equal(got.count, 2);
    assert_int_equal(got.measured, 0);
    for (uint32_t i = 0; i < 2; i++) {
        const struct choice *choice;
        assert_int_equal(choices_find(&got, &all[i].shape, all[i].pass, &choice, NULL), 0);
        assert_memory_equal(choice->time, all[i].time, sizeof choice->time);
    }
    assert_int_equal(got.measured, 0);
    mem_free(text);
    choices_fini(&got);
}

/* Every prefix and every line that was changed: no error, and nothing is taken over that is not whole. */
static void other_text_is_ignored(void **state)
{
    (void)state;
    struct choice all[] = {{shape, CONV_FORWARD, {{11, 12, 13}, {14, 15, 16}}}};
    const struct choices kept = {.all = all, .count = 1};
    char *text = text_of(&kept);
    size_t length = strlen(text);
    for (size_t cut = 0; cut < length - 2; cut++) {
        struct choices got = {0};
        char *part = mem_text(text, cut);
        assert_int_equal(choices_parse(&got, part, NULL), 0);
        assert_int_equal(got.count, 0);
        mem_free(part);
        choices_fini(&got);
    }
    for (char *line = text; line < text + length; line = strchr(line, '\n') + 1) {
        if (*line == '#') {
            continue;
        }
        struct choices got = {0};
        char saved = *line;
        *line = 'X'; /* another program's file, another machine's, another pass */
        assert_int_equal(choices_parse(&got, text, NULL), 0);
        assert_int_equal(got.count, 0);
        *line = saved;
    }
    char *number = strstr(text, " 13 ");
    assert_non_null(number);
    static const char *const bad[] = {" -3 ", "nan ", " x3 "};
    for (size_t i = 0; i < 3; i++) {
        struct choices got = {0};
        memcpy(number, bad[i], 4);
        assert_int_equal(choices_parse(&got, text, NULL), 0);
        assert_int_equal(got.count, 0);
        choices_fini(&got);
    }
    mem_free(text);
}

/* Before a measurement, not after it; and not where all is known. */
static void a_cancelled_search_ends(void **state)
{
    (void)state;
    bool cancel = true;
    struct choice all[] = {{shape, CONV_FORWARD, {{11, 12, 13}, {14, 15, 16}}}};
    struct choices choices = {.all = all, .count = 1, .cancel = &cancel};
    const struct choice *choice;
    assert_int_equal(choices_find(&choices, &shape, CONV_FORWARD, &choice, NULL), 0);
    assert_int_equal(choices_find(&choices, &shape, CONV_BACKWARD_DATA, &choice, NULL), ERR_CANCELLED);
    assert_int_equal(choices.count, 1);
}

static void what_is_not_known_is_measured(void **state)
{
    (void)state;
    if (!onednn_has_avx512()) {
        print_message("    not on this machine: maps that lie in blocks\n");
        return;
    }
    struct choices choices = {0};
    const struct choice *choice;
    assert_int_equal(choices_find(&choices, &shape, CONV_BACKWARD_WEIGHTS, &choice, NULL), 0);
    assert_int_equal(choices.measured, 1);
    for (int method = CONV_DIRECT; method < CHOICE_METHODS; method++) {
        double f32 = choice->time[MAP_F32][method], bf16 = choice->time[MAP_BF16][method];
        assert_true(f32 > 0 && f32 < 1e9 && f32 == round(f32));
        assert_true(onednn_has_bf16() ? bf16 > 0 : bf16 == 0);
    }
    assert_int_equal(choices_find(&choices, &shape, CONV_BACKWARD_WEIGHTS, &choice, NULL), 0);
    assert_int_equal(choices.measured, 1);
    struct conv_shape strided = shape; /* Winograd is for stride 1 */
    strided.stride = 2;
    strided.dst.side = 4;
    assert_int_equal(choices_find(&choices, &strided, CONV_FORWARD, &choice, NULL), 0);
    assert_true(choice->time[MAP_F32][CONV_DIRECT] > 0 && choice->time[MAP_F32][CONV_WINOGRAD4] == 0);
    choices_fini(&choices);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_fastest_right_method_wins), cmocka_unit_test(text_comes_back),
        cmocka_unit_test(other_text_is_ignored),         cmocka_unit_test(a_cancelled_search_ends),
        cmocka_unit_test(what_is_not_known_is_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
