/* Addresses between text and sockaddr; inside common/net only (net_split_address stands in conn.h). */
#ifndef STARLING_NET_ADDRESS_H
#define STARLING_NET_ADDRESS_H

#include <sys/socket.h>

#define NET_ADDRESS_MAX 300

/* "127.0.0.1:7640", "[::1]:7640". */
void net_format_address(const struct sockaddr *address, char out[NET_ADDRESS_MAX]);

#endif
