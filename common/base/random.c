#include "common/base/random.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/random.h>

int random_bytes(void *out, size_t bytes, struct err *err)
{
    uint8_t *at = out;
    while (bytes > 0) { /* more than 256 may come in parts, when a signal does */
        ssize_t got = getrandom(at, bytes, 0);
        if (got < 0 && errno != EINTR) {
            return err_set(err, ERR_FAILED, "random bytes: %s", strerror(errno));
        }
        at += got > 0 ? got : 0;
        bytes -= got > 0 ? (size_t)got : 0;
    }
    return 0;
}
