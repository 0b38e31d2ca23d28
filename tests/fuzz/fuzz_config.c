/* The plan as a client reads it from WELCOME. Input: the bytes.
 *
 * Must hold: a plan that is accepted is canonical after one encoding: it decodes again, to the same bytes. */
#include "common/base/buf.h"
#include "common/config/plan.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition) ((condition) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct plan plan, again;
    struct err err = {0};
    struct buf once, twice;
    int rc = plan_decode(data, size, &plan, &err);
    if (rc != 0) {
        REQUIRE(err.code == rc && err.text[0] != 0);
        return 0;
    }
    buf_init(&once, SIZE_MAX / 2);
    buf_init(&twice, SIZE_MAX / 2);
    REQUIRE(plan_encode(&plan, &once) == 0);
    REQUIRE(plan_decode(once.data, once.len, &again, NULL) == 0);
    REQUIRE(plan_encode(&again, &twice) == 0);
    REQUIRE(once.len == twice.len && memcmp(once.data, twice.data, once.len) == 0);
    buf_fini(&once);
    buf_fini(&twice);
    return 0;
}
