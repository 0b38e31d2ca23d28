#include "common/base/role.h"

#include <string.h>

static const char *const roles[] = {
    [ROLE_TRAINER] = "trainer",
    [ROLE_OBSERVER] = "observer",
    [ROLE_OPERATOR] = "operator",
    [ROLE_SERVER] = "server",
};
#define ROLES (sizeof roles / sizeof roles[0])

const char *role_name(uint32_t role)
{
    return role > 0 && role < ROLES ? roles[role] : "unknown";
}

bool role_parse(const char *text, uint32_t *out)
{
    for (uint32_t role = 1; role < ROLES; role++) {
        if (strcmp(text, roles[role]) == 0) {
            *out = role;
            return true;
        }
    }
    return false;
}
