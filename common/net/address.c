/* Addresses as texts, in and out. */
#include "common/net/address.h"

#include "common/net/conn.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

static bool port_is_valid(const char *port)
{
    unsigned value = 0;
    size_t len = strlen(port);
    for (size_t i = 0; i < len && i < 5; i++) {
        if (port[i] < '0' || port[i] > '9') {
            return false;
        }
        value = value * 10 + (unsigned)(port[i] - '0');
    }
    return len > 0 && len <= 5 && value <= 65535;
}

int net_split_address(const char *address, char host[256], char port[8], struct err *err)
{
    bool bracketed = address[0] == '[';
    const char *begin = address + (bracketed ? 1 : 0);
    const char *end = bracketed ? strchr(begin, ']') : strchr(begin, ':');
    const char *colon = end && bracketed ? end + 1 : end;
    if (!end || *colon != ':' || end == begin || (size_t)(end - begin) > 255) {
        return err_set(err, ERR_USAGE, "%.300s: not an address; write HOST:PORT or [IPV6]:PORT", address);
    }
    if (!bracketed && strchr(colon + 1, ':')) {
        return err_set(err, ERR_USAGE, "%.300s: an IPv6 address needs brackets, as in [::1]:7640", address);
    }
    if (!port_is_valid(colon + 1)) {
        return err_set(err, ERR_USAGE, "%.300s: the port must be a number from 0 to 65535", address);
    }
    memcpy(host, begin, (size_t)(end - begin));
    host[end - begin] = 0;
    memcpy(port, colon + 1, strlen(colon + 1) + 1);
    return 0;
}

void net_format_address(const struct sockaddr *address, char out[NET_ADDRESS_MAX])
{
    char host[64] = "?";
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)address;
        (void)uv_ip4_name(v4, host, sizeof host);
        (void)snprintf(out, NET_ADDRESS_MAX, "%s:%u", host, ntohs(v4->sin_port));
    } else if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)address;
        (void)uv_ip6_name(v6, host, sizeof host);
        (void)snprintf(out, NET_ADDRESS_MAX, "[%s]:%u", host, ntohs(v6->sin6_port));
    } else {
        (void)snprintf(out, NET_ADDRESS_MAX, "?");
    }
}
