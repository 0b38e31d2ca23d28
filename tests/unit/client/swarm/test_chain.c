/* The closed form against the server's fixed-point sum, bit for bit, for every form of the numbers; and that each wrong
 * sum is found: a contribution lost, counted twice, with another weight or sign, one bit of the model flipped. */
#include "tests/unit/client/swarm/swarm_support.h"

#include "common/base/rng.h"

#include <math.h>

static struct plan plan;
static struct layout *layout;

static int set_up(void **state)
{
    (void)state;
    small_plan(&plan);
    return layout_new(&plan.model, &layout, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    layout_free(layout);
    return 0;
}

static void use_form(uint32_t form)
{
    plan.wire.update = plan.wire.features = form;
}

static void test_numbers_travel_exactly(void **state)
{
    (void)state;
    float *got = mem_new(layout->total, sizeof *got);
    for (uint32_t form = QUANT_F32; form <= QUANT_INT8; form++) {
        struct stream stream;
        uint32_t at;
        use_form(form);
        assert_int_equal(stream_init(&stream, &plan, layout, 20, NULL), 0);
        for (int sign = 0; sign < 2; sign++) {
            const struct bytes *bytes = stream.update[sign];
            assert_int_equal(quant_update_decode((enum quant)form, layout, bytes->data, bytes->len, got, &at), 0);
            for (uint64_t i = 0; i < layout->total; i++) {
                float wanted = (float)(sign ? -stream.numbers[i] : stream.numbers[i]) * 0x1p-20f;
                assert_true(got[i] == wanted);
            }
            assert_int_equal(blob_check(&(struct blob){.kind = BLOB_UPDATE,
                                                       .element = stream.update_blob[sign].element,
                                                       .count = stream.update_blob[sign].count,
                                                       .bytes = stream.update_blob[sign].bytes},
                                        NULL),
                             0);
        }
        float rows[20 * 8];
        assert_int_equal(
            quant_rows_decode((enum quant)form, stream.features->data, stream.features->len, 20, 8, rows, &at),
            QUANT_OK);
        for (uint32_t a = 0; a < 20; a++) { /* of unit length, and none like another */
            for (uint32_t b = 0; b <= a; b++) {
                float cosine = 0;
                for (uint32_t d = 0; d < 8; d++) {
                    cosine += rows[a * 8 + d] * rows[b * 8 + d];
                }
                assert_true(a == b ? fabsf(cosine - 1) < 1e-3f : cosine < 0.999f);
            }
        }
        stream_fini(&stream);
    }
    mem_free(got);
}

static void test_more_features_than_the_plan_lets_upload(void **state)
{
    (void)state;
    struct stream stream;
    struct err err;
    assert_int_equal(stream_init(&stream, &plan, layout, 21, &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "fusion.upload"));
}

static void contribute(struct summed *server, const struct stream *stream, uint64_t weight, int sign)
{
    summed_add(server, plan.wire.update, stream->update[sign]->data, stream->update[sign]->len, weight);
}

/* Rounds of any clients in any order: what the sum makes is what the chain says. */
static void test_the_sum_is_exact(void **state)
{
    (void)state;
    for (uint32_t form = QUANT_F32; form <= QUANT_INT8; form++) {
        struct stream stream;
        struct chain chain;
        struct summed server;
        struct err err = {0};
        struct rng rng;
        use_form(form);
        assert_int_equal(stream_init(&stream, &plan, layout, 0, NULL), 0);
        assert_int_equal(chain_init(&chain, &stream, 7, 1), 0);
        summed_init(&server, layout, 7);
        rng_init(&rng, 1, RNG_TEST, form, 0, 0);
        for (uint32_t round = 1; round <= 20; round++) {
            uint64_t images[2] = {0, 0};
            assert_int_equal(chain_judge(&chain, server.model, &err), 0);
            for (uint32_t n = 1 + rng_below(&rng, 40); n > 0; n--) {
                uint32_t client = rng_below(&rng, 20000);
                contribute(&server, &stream, stream_images(client), stream_sign(client));
                images[stream_sign(client)] += stream_images(client);
            }
            summed_close(&server);
            chain_advance(&chain, images[0], images[1]);
        }
        assert_int_equal(chain_judge(&chain, server.model, &err), 0);
        assert_int_equal(chain.round, 21);
        summed_fini(&server);
        chain_fini(&chain);
        stream_fini(&stream);
    }
}

/* One of many clients is not as it was counted. */
static void test_each_wrong_sum_is_found(void **state)
{
    (void)state;
    enum { RIGHT, LOST, TWICE, HEAVIER, SIGN, WAYS };
    struct stream stream;
    use_form(QUANT_F32);
    assert_int_equal(stream_init(&stream, &plan, layout, 0, NULL), 0);
    static const uint32_t clients[] = {20, 2000};
    for (size_t c = 0; c < 2; c++) {
        for (int way = RIGHT; way < WAYS; way++) {
            struct chain chain;
            struct summed server;
            struct err err = {0};
            uint64_t images[2] = {0, 0};
            assert_int_equal(chain_init(&chain, &stream, 7, 1), 0);
            summed_init(&server, layout, 7);
            for (uint32_t i = 0; i < clients[c]; i++) {
                bool odd = i == 11;
                images[stream_sign(i)] += stream_images(i);
                for (int times = odd && way == LOST ? 0 : odd && way == TWICE ? 2 : 1; times > 0; times--) {
                    contribute(&server, &stream, stream_images(i) + (odd && way == HEAVIER),
                               stream_sign(i) ^ (odd && way == SIGN));
                }
            }
            summed_close(&server);
            chain_advance(&chain, images[0], images[1]);
            assert_int_equal(chain_judge(&chain, server.model, &err), way == RIGHT ? 0 : ERR_FAILED);
            assert_true(way == RIGHT || strstr(err.text, "the model of round 2 is wrong: number "));
            summed_fini(&server);
            chain_fini(&chain);
        }
    }
    stream_fini(&stream);
}

/* The planted bug of the comparer: any one bit. */
static void test_a_flipped_bit_is_found(void **state)
{
    (void)state;
    struct stream stream;
    struct chain chain;
    struct summed server;
    use_form(QUANT_F32);
    assert_int_equal(stream_init(&stream, &plan, layout, 0, NULL), 0);
    assert_int_equal(chain_init(&chain, &stream, 7, 1), 0);
    summed_init(&server, layout, 7);
    const uint64_t places[] = {0, 1, layout->trainable_end, layout->total - 1};
    for (size_t p = 0; p < 4; p++) {
        for (int bit = 0; bit < 32; bit++) { /* 31 of a 0: only its sign */
            struct err err = {0};
            char wanted[64];
            uint32_t bits;
            memcpy(&bits, &server.model[places[p]], 4);
            bits ^= UINT32_C(1) << bit;
            memcpy(&server.model[places[p]], &bits, 4);
            (void)snprintf(wanted, sizeof wanted, "round 1 is wrong: number %llu is ", (unsigned long long)places[p]);
            assert_int_equal(chain_judge(&chain, server.model, &err), ERR_FAILED);
            assert_non_null(strstr(err.text, wanted));
            bits ^= UINT32_C(1) << bit;
            memcpy(&server.model[places[p]], &bits, 4);
        }
    }
    assert_int_equal(chain_judge(&chain, server.model, NULL), 0);
    summed_fini(&server);
    chain_fini(&chain);
    stream_fini(&stream);
}

/* A run under way: the first model is taken, the next is known; and numbers for which the sum would round are refused.
 */
static void test_a_run_under_way(void **state)
{
    (void)state;
    struct stream stream;
    struct chain chain;
    struct summed server;
    struct err err = {0};
    use_form(QUANT_F32);
    assert_int_equal(stream_init(&stream, &plan, layout, 0, NULL), 0);
    assert_int_equal(chain_init(&chain, &stream, 8, 3), 0);
    summed_init(&server, layout, 7);
    server.model[0] = 100.0f;
    summed_open(&server);
    assert_int_equal(chain_judge(&chain, server.model, &err), 0);
    contribute(&server, &stream, 3, 1);
    contribute(&server, &stream, 4, 0);
    summed_close(&server);
    chain_advance(&chain, 4, 3);
    assert_int_equal(chain_judge(&chain, server.model, &err), 0);
    chain.known = false;
    server.model[0] = 5000.0f;
    assert_int_equal(chain_judge(&chain, server.model, &err), ERR_DATA);
    assert_non_null(strstr(err.text, layout->tensors[0].name));
    summed_fini(&server);
    chain_fini(&chain);
    stream_fini(&stream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_travel_exactly), cmocka_unit_test(test_more_features_than_the_plan_lets_upload),
        cmocka_unit_test(test_the_sum_is_exact),       cmocka_unit_test(test_each_wrong_sum_is_found),
        cmocka_unit_test(test_a_flipped_bit_is_found), cmocka_unit_test(test_a_run_under_way),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
