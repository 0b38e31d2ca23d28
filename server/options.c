/* The keys of server.yaml: how the server runs. What all sites must agree on is the plan's table, under "plan". */
#include "server/options.h"

#include "server/shell/daemon.h"

#include <stddef.h>

static const char *const formats[] = {"text", "json", NULL};
static const char *const levels[] = {"debug", "info", "warn", "error", NULL};

#define AT(field)   .offset = offsetof(struct server_options, field)
#define TEXT(field) AT(field), .size = sizeof((struct server_options *)0)->field

/* clang-format off */
static const struct option options[] = {
    {"listen", OPTION_TEXT, TEXT(listen), .standard = "127.0.0.1:7640",
     .help = "HOST:PORT that clients connect to; 0.0.0.0 for all of this machine's addresses, port 0 lets the kernel choose. Beyond loopback it needs `trust`."},
    {"state", OPTION_TEXT, TEXT(state), .standard = "starling-state",
     .help = "Folder of checkpoints, models and history. A server that is started again with it goes on where it was."},
    {"trust", OPTION_TEXT, TEXT(trust),
     .help = "Folder that `starling ca init` made: connections are encrypted (TLS 1.3), and nobody takes part without a certificate, which a token of `starling ca token` gives. Empty: plain TCP."},
    {"certificate_valid", OPTION_DURATION, AT(certificate_valid_ms), .least = 3000, .most = 31536000000, .standard = "720h",
     .help = "How long a client's certificate holds. Clients renew theirs in time while they are connected; whoever is away for longer needs a new token."},
    {"plain_beyond_loopback", OPTION_BOOL, AT(plain_beyond_loopback), .standard = "false",
     .help = "Whether to listen beyond loopback without TLS: anybody on the way can then read and change everything, and anybody who reaches the port can take part."},
    {"idle_timeout", OPTION_DURATION, AT(idle_timeout_ms), .least = 500, .most = 604800000, .standard = "60s",
     .help = "A connection without a byte for so long is closed."},
    {"upload_slots", OPTION_U32, AT(upload_slots), .least = 1, .most = 64, .standard = "8",
     .help = "Most updates that are uploaded at the same time; each needs the memory of one model. Two are, and more while others wait and more bring more bytes a second: where the clients' links are slow."},
    {"upload_rate", OPTION_U32, AT(upload_rate), .least = 0, .most = 1073741824, .standard = "8192",
     .help = "Bytes a second, measured over idle_timeout, below which an upload loses its slot to those who wait; it may try again. 0: as slow as it likes."},
    {"max_clients", OPTION_U32, AT(max_clients), .least = 1, .most = 16384, .standard = "1000",
     .help = "Connections at the same time; further ones are told to come back. Each is an open file, and at most 2.2 MiB of this process beside socket_buffer."},
    {"strangers_max", OPTION_U32, AT(strangers_max), .least = 4, .most = 16384, .standard = "128",
     .help = "Connections at the same time that have not said who they are, beside max_clients: each has idle_timeout / 6 for that, and may be closed for a newer one after a tenth of it when all these places are taken. With TLS a tenth of them, but 4 at the least and 64 at the most, may be in the handshake, which costs 44 KB each."},
    {"strangers_per_address", OPTION_U32, AT(strangers_per_address), .least = 1, .most = 16384, .standard = "32",
     .help = "How many of these may come from one IPv4 address, or from one IPv6 network of 64 bits. Sites behind one address need one for as long as a greeting takes."},
    {"socket_buffer", OPTION_U32, AT(socket_buffer), .least = 0, .most = 16777216, .standard = "1048576",
     .help = "Bytes of each of a connection's two buffers in the kernel, which takes twice that. 1048576 carries some 80 Mbit/s to a client at 100 ms; 0 lets the kernel choose, up to about 10 MiB a connection."},
    {"keep_every", OPTION_U32, AT(keep_every), .least = 0, .most = 1000000, .standard = "0",
     .help = "Models of rounds that are multiples of this are kept; 0: the first, the last and the one before it."},
    {"bank.capacity", OPTION_U32, AT(bank.capacity), .least = 1, .most = 16777216, .standard = "16384",
     .help = "Rows in the feature bank, all clients together."},
    {"log.format", OPTION_CHOICE, AT(log.format), .choices = formats, .standard = "text",
     .help = "Lines on standard error."},
    {"log.level", OPTION_CHOICE, AT(log.level), .choices = levels, .standard = "info",
     .help = "The least important events to be logged."},
};
/* clang-format on */

void server_option_set_init(struct server_option_set *out)
{
    out->tables[0] =
        (struct option_table){.prefix = "", .options = options, .count = sizeof options / sizeof options[0]};
    out->tables[1] = (struct option_table){.prefix = "plan",
                                           .base = offsetof(struct server_options, plan),
                                           .options = plan_options,
                                           .count = plan_options_count};
    out->set = (struct option_set){.tables = out->tables, .count = 2};
}
