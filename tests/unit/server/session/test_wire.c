/* Plans whose updates and features travel as f16 or int8: the sum is that of what the packed numbers mean, in any
 * order; what is packed in another way is declined; the features that come back are packed too. */
#include "common/base/byteorder.h"
#include "tests/unit/server/session/world.h"

static struct world w;
static struct site sites[SITES];

static void begin(uint32_t update, uint32_t features)
{
    world_init(&w);
    w.plan.wire.update = update;
    w.plan.wire.features = features;
    for (uint32_t i = 0; i < SITES; i++) {
        site_init(&sites[i], i);
    }
    world_start(&w);
}

static void end(void)
{
    for (uint32_t i = 0; i < SITES; i++) {
        site_fini(&sites[i]);
    }
    world_fini(&w);
}

/* Three sites deliver round 1 in this order; the new model is the caller's. */
static float *first_round(const uint32_t order[3])
{
    for (uint32_t i = 0; i < 3; i++) {
        join(&w, &sites[i]);
    }
    for (uint32_t i = 0; i < 3; i++) {
        deliver(&w, &sites[order[i]]);
    }
    assert_int_equal(w.disk.round, 1);
    return copy_of(w.disk.params, (size_t)w.layout->total * sizeof(float));
}

static void the_sum_is_of_what_travelled(void **state)
{
    (void)state;
    static const uint32_t orders[2][3] = {{0, 1, 2}, {2, 0, 1}};
    for (uint32_t form = QUANT_F16; form <= QUANT_INT8; form++) {
        float *models[2];
        for (uint32_t o = 0; o < 2; o++) {
            begin(form, form);
            models[o] = first_round(orders[o]);
            float *params = mem_new((size_t)w.layout->total, sizeof *params);
            params_init(w.layout, w.plan.seed, params);
            for (uint64_t i = 0; i < w.layout->total; i++) {
                double sum = 0, weight = 0; /* the sites' floats are what was unpacked */
                for (uint32_t s = 0; s < 3; s++) {
                    double images = (double)sites[s].offer.offer.report.images;
                    sum += images * (double)sites[s].update[i];
                    weight += images;
                }
                assert_true(fabs((double)models[o][i] - (double)params[i] - sum / weight) < 1e-6);
            }
            mem_free(params);
            end();
        }
        begin(QUANT_F32, form);
        float *unpacked = first_round(orders[0]);
        uint64_t bytes = (uint64_t)w.layout->total * sizeof(float);
        assert_memory_equal(models[0], models[1], (size_t)bytes);
        assert_memory_not_equal(models[0], unpacked, (size_t)bytes);
        end();
        mem_free(models[0]);
        mem_free(models[1]);
        mem_free(unpacked);
    }
}

static void the_status_counts_fewer_bytes(void **state)
{
    (void)state;
    static const uint32_t order[3] = {0, 1, 2};
    uint64_t update[3], features[3];
    for (uint32_t form = QUANT_F32; form <= QUANT_INT8; form++) {
        begin(form, form);
        mem_free(first_round(order));
        struct msg keep;
        struct msg_status_reply status = status_of(&w, &keep);
        update[form] = status.clients[0].bytes_by_kind[BLOB_UPDATE];
        features[form] = status.clients[0].bytes_by_kind[BLOB_FEATURES];
        msg_fini(&keep);
        end();
    }
    assert_int_equal(2 * update[QUANT_F16], update[QUANT_F32]);
    assert_int_equal(2 * features[QUANT_F16], features[QUANT_F32]);
    assert_true(10 * update[QUANT_INT8] < 4 * update[QUANT_F32]); /* this model is tiny, and has many statistics */
    assert_int_equal(features[QUANT_INT8], ROWS * (D + 4));
}

/* Rows as they come down: packed, of others alone, the same from any byte on. */
static void remote_rows_are_packed(void **state)
{
    (void)state;
    static const uint32_t order[3] = {0, 1, 2};
    for (uint32_t form = QUANT_F16; form <= QUANT_INT8; form++) {
        begin(QUANT_F32, form);
        mem_free(first_round(order));
        (void)hear(&w, 0, MSG_ROUND_END);
        struct blob blob = hear(&w, 0, MSG_ROUND).round.remote;
        assert_int_equal(blob.element, element_of(form));
        uint32_t rows = (uint32_t)(blob.count / D), at;
        assert_int_equal(rows, w.plan.fusion.remote);
        assert_int_equal(blob.bytes, quant_rows_bytes(form, rows, D));
        uint8_t *whole = fetch(&w, 0, &blob, 0);
        struct hash128 hash = hash_of(whole, (size_t)blob.bytes);
        assert_true(hash_equal(&hash, &blob.hash));
        for (uint64_t from = 0; from < blob.bytes; from += 7) {
            uint8_t *rest = fetch(&w, 0, &blob, from);
            assert_memory_equal(whole + from, rest + from, (size_t)(blob.bytes - from));
            mem_free(rest);
        }
        float *out = mem_new((size_t)rows * D, sizeof *out);
        assert_int_equal(quant_rows_decode(form, whole, blob.bytes, rows, D, out, &at), QUANT_OK);
        for (uint32_t r = 0; r < rows; r++) {
            double site = (double)out[r * D] * 64 - 1;
            assert_true(fabs(site - 1) < 0.6 || fabs(site - 2) < 0.6);
        }
        mem_free(out);
        mem_free(whole);
        end();
    }
}

static void offer_again(uint32_t site)
{
    say(&w, site, sites[site].offer);
    answer_grants(&w, &sites[site]);
}

static void what_is_packed_otherwise_is_declined(void **state)
{
    (void)state;
    begin(QUANT_INT8, QUANT_INT8);
    for (uint32_t i = 0; i < 3; i++) {
        join(&w, &sites[i]);
    }
    (void)hear(&w, 0, MSG_ROUND);
    train(&w, &sites[0], 1);
    struct msg offer = sites[0].offer;
    offer.offer.update.element = ELEMENT_F32;
    offer.offer.update.bytes = 4 * offer.offer.update.count;
    say(&w, 0, offer);
    struct msg declined = hear_declined(&w, 0, DECLINE_LENGTH);
    assert_non_null(strstr(declined.declined.text, "as int8"));
    assert_non_null(strstr(declined.declined.text, "as f32"));
    offer = sites[0].offer;
    offer.offer.update.bytes -= 4; /* a scale too few */
    say(&w, 0, offer);
    (void)hear_declined(&w, 0, DECLINE_LENGTH);
    offer = sites[0].offer;
    offer.offer.features.element = ELEMENT_F16;
    offer.offer.features.bytes = 2 * offer.offer.features.count;
    say(&w, 0, offer);
    declined = hear_declined(&w, 0, DECLINE_FEATURES);
    assert_non_null(strstr(declined.declined.text, "as int8 (wire.features), not as f16"));

    struct msg_offer *mine = &sites[0].offer.offer;
    store_u32(sites[0].packed_update + w.layout->total, 0x7fc00000);
    mine->update.hash = hash_of(sites[0].packed_update, (size_t)mine->update.bytes);
    offer_again(0);
    declined = hear_declined(&w, 0, DECLINE_NOT_FINITE);
    assert_non_null(strstr(declined.declined.text, w.layout->tensors[0].name));
    train(&w, &sites[0], 1);
    store_u32(sites[0].packed_features + ROWS * D + 4, 0x3f800000);
    mine->features.hash = hash_of(sites[0].packed_features, (size_t)mine->features.bytes);
    offer_again(0);
    (void)hear_declined(&w, 0, DECLINE_FEATURES);
    train(&w, &sites[0], 1); /* a good one after all these counts */
    offer_again(0);
    (void)hear(&w, 0, MSG_ACCEPTED);
    end();

    begin(QUANT_F32, QUANT_F32);
    for (uint32_t i = 0; i < 3; i++) {
        join(&w, &sites[i]);
    }
    (void)hear(&w, 0, MSG_ROUND);
    train(&w, &sites[0], 1);
    offer = sites[0].offer;
    offer.offer.update.element = ELEMENT_F16;
    offer.offer.update.bytes /= 2;
    say(&w, 0, offer);
    (void)hear_declined(&w, 0, DECLINE_LENGTH);
    end();
}

/* Of the same length, so that nothing but the element tells. */
static void bf16_is_not_f16(void **state)
{
    (void)state;
    begin(QUANT_F16, QUANT_F16);
    for (uint32_t i = 0; i < 3; i++) {
        join(&w, &sites[i]);
    }
    (void)hear(&w, 0, MSG_ROUND);
    train(&w, &sites[0], 1);
    struct msg offer = sites[0].offer;
    offer.offer.update.element = ELEMENT_BF16;
    say(&w, 0, offer);
    (void)hear_declined(&w, 0, DECLINE_LENGTH);
    offer = sites[0].offer;
    offer.offer.features.element = ELEMENT_BF16;
    say(&w, 0, offer);
    (void)hear_declined(&w, 0, DECLINE_FEATURES);
    end();
}

static void a_client_must_be_able_to(void **state)
{
    (void)state;
    begin(QUANT_F16, QUANT_INT8);
    static const uint64_t can[] = {0, CAPABILITY_F16, CAPABILITY_I8 | CAPABILITY_BF16};
    for (uint32_t i = 0; i < 3; i++) {
        struct msg hello = hello_of(&sites[i]);
        hello.hello.capabilities = can[i];
        open_peer(&w, i);
        say(&w, i, hello);
        struct msg reject = hear(&w, i, MSG_REJECT);
        assert_int_equal(reject.reject.code, REJECT_PLAN);
        assert_non_null(strstr(reject.reject.text, i == 1 ? "wire.features: int8" : "wire.update: f16"));
    }
    join(&w, &sites[4]);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sum_is_of_what_travelled),
        cmocka_unit_test(the_status_counts_fewer_bytes),
        cmocka_unit_test(remote_rows_are_packed),
        cmocka_unit_test(what_is_packed_otherwise_is_declined),
        cmocka_unit_test(bf16_is_not_f16),
        cmocka_unit_test(a_client_must_be_able_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
