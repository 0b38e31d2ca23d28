/* Which blob descriptions are sane. */
#include "tests/support/msg_samples.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define GIB (UINT64_C(1) << 30)

static void test_table(void **state)
{
    (void)state;
    static const struct {
        uint32_t kind, element, dimension, encoder;
        uint64_t count, bytes;
        int want;
    } rows[] = {
        {BLOB_MODEL, ELEMENT_F32, 0, 0, 10, 40, 0},
        {BLOB_UPDATE, ELEMENT_F16, 0, 0, 10, 20, 0},
        {BLOB_UPDATE, ELEMENT_BF16, 0, 0, 10, 20, 0},
        {BLOB_FEATURES, ELEMENT_F32, 5, 1, 10, 40, 0},
        {BLOB_REMOTE, ELEMENT_F32, 10, 0, 10, 40, 0},
        {BLOB_FEATURES, ELEMENT_I8, 5, 0, 10, 18, 0}, /* two scales */
        {BLOB_MODEL, ELEMENT_F32, 0, 0, GIB, 4 * GIB, 0},
        {0, ELEMENT_F32, 0, 0, 10, 40, ERR_PROTOCOL},
        {5, ELEMENT_F32, 0, 0, 10, 40, ERR_PROTOCOL},
        {BLOB_MODEL, 0, 0, 0, 10, 40, ERR_PROTOCOL},
        {BLOB_MODEL, 5, 0, 0, 10, 40, ERR_PROTOCOL},
        {BLOB_MODEL, ELEMENT_F32, 0, 0, 0, 0, ERR_PROTOCOL},
        {BLOB_MODEL, ELEMENT_F32, 0, 0, 10, 41, ERR_PROTOCOL},
        {BLOB_MODEL, ELEMENT_F32, 0, 0, 10, 20, ERR_PROTOCOL},
        {BLOB_MODEL, ELEMENT_F32, 0, 0, GIB + 1, 4 * GIB + 4, ERR_PROTOCOL},
        {BLOB_MODEL, ELEMENT_F32, 0, 0, UINT64_C(1) << 62, 0, ERR_PROTOCOL}, /* the product wraps to 0 */
        {BLOB_MODEL, ELEMENT_F32, 5, 0, 10, 40, ERR_PROTOCOL},
        {BLOB_MODEL, ELEMENT_F32, 0, 1, 10, 40, ERR_PROTOCOL},
        {BLOB_FEATURES, ELEMENT_F32, 0, 0, 10, 40, ERR_PROTOCOL},
        {BLOB_FEATURES, ELEMENT_F32, 3, 0, 10, 40, ERR_PROTOCOL},
        {BLOB_FEATURES, ELEMENT_F32, 20, 0, 10, 40, ERR_PROTOCOL},
        {BLOB_FEATURES, ELEMENT_F32, 65537, 0, 65537, 4 * 65537, ERR_PROTOCOL},
        {BLOB_FEATURES, ELEMENT_F32, 5, 256, 10, 40, ERR_PROTOCOL},
        {BLOB_FEATURES, ELEMENT_I8, 5, 0, 10, 10, ERR_PROTOCOL}, /* no scale */
        {BLOB_FEATURES, ELEMENT_I8, 5, 0, 10, 13, ERR_PROTOCOL},
        {BLOB_FEATURES, ELEMENT_I8, 5, 0, 10, 54, ERR_PROTOCOL}, /* more scales than numbers */
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct blob blob = {.kind = rows[i].kind,
                            .element = rows[i].element,
                            .dimension = rows[i].dimension,
                            .encoder = rows[i].encoder,
                            .count = rows[i].count,
                            .bytes = rows[i].bytes};
        struct err err = {0};
        int rc = blob_check(&blob, &err);
        if (rc != rows[i].want || (rc < 0 && err.text[0] == 0)) {
            fail_msg("row %zu: %s (%s)", i, err_name(rc), err.text);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
