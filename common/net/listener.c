/* A listening socket. It is made with plain system calls and only then handed to libuv: libuv reports an address in use
 * late, when its handle can no longer be dropped without a turn of the loop.
 *
 * libuv takes connections in one turn for as long as there are any, and a flood always has one more: all others would
 * wait, and what was closed meanwhile would stay in memory, since that is let go of between turns. So every
 * LISTENER_TURN-th one is left for the next turn: a connection that is not taken in the callback waits, and until it is
 * taken libuv looks for no other. */
#include "common/net/address.h"
#include "common/net/conn.h"

#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>

#define BACKLOG  511
#define AGAIN_MS 100u

/* Accepted sockets inherit the sizes of buffers, which count from the handshake on. */
static int listen_on(const struct addrinfo *info, int bytes, int *fd)
{
    int on = 1;
    *fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (*fd < 0) {
        return -errno;
    }
    if (setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        (bytes > 0 && (setsockopt(*fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes) < 0 ||
                       setsockopt(*fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes) < 0)) ||
        bind(*fd, info->ai_addr, info->ai_addrlen) < 0 || listen(*fd, BACKLOG) < 0) {
        int rc = -errno;
        (void)close(*fd);
        return rc;
    }
    return 0;
}

static int open_socket(const char *address, int bytes, int *fd, struct err *err)
{
    char host[256], port[8];
    int rc = net_split_address(address, host, port, err);
    if (rc < 0) {
        return rc;
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *info;
    rc = getaddrinfo(host, port, &hints, &info);
    if (rc != 0) {
        return err_set(err, ERR_UNAVAILABLE, "%s: %s", address, gai_strerror(rc));
    }
    rc = listen_on(info, bytes, fd);
    freeaddrinfo(info);
    return rc < 0 ? err_set(err, ERR_UNAVAILABLE, "%s: cannot listen: %s", address, uv_strerror(rc)) : 0;
}

/* At once, or when the timer has run out; once more if there was no memory for it. Only uv_accept that succeeds has
 * libuv look for others again. With a new handle, on which nothing is set yet, it does, when a connection waits. */
static void take(uv_timer_t *later)
{
    struct listener *listener = later->data;
    if (!listener->on_connection(listener->ctx, listener)) {
        (void)uv_timer_start(later, take, AGAIN_MS, 0);
    }
}

static void on_connection(uv_stream_t *stream, int status)
{
    struct listener *listener = stream->data;
    if (status < 0) {
        if (listener->on_failure) {
            listener->on_failure(listener->ctx, uv_strerror(status));
        }
    } else if (++listener->taken < LISTENER_TURN) {
        take(&listener->later);
    } else {
        listener->taken = 0;
        (void)uv_timer_start(&listener->later, take, 0, 0);
    }
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct listener *listener = handle->data;
    if (listener->done) {
        listener->done(listener);
    }
}

static void on_closed(uv_handle_t *handle)
{
    struct listener *listener = handle->data;
    uv_close((uv_handle_t *)&listener->later, on_timer_closed);
}

int listener_open(uv_loop_t *loop, const char *address, struct listener *listener, char bound[300], struct err *err)
{
    int fd = -1;
    int rc = open_socket(address, listener->socket_bytes, &fd, err);
    if (rc < 0) {
        return rc;
    }
    struct sockaddr_storage name;
    socklen_t len = sizeof name;
    if (getsockname(fd, (struct sockaddr *)&name, &len) == 0) {
        net_format_address((struct sockaddr *)&name, bound);
    }
    /* What follows fails only for reasons that an open, listening socket rules out. */
    rc = uv_tcp_init(loop, &listener->tcp);
    rc = rc < 0 ? rc : uv_tcp_open(&listener->tcp, fd);
    rc = rc < 0 ? rc : uv_timer_init(loop, &listener->later);
    listener->tcp.data = listener->later.data = listener;
    rc = rc < 0 ? rc : uv_listen((uv_stream_t *)&listener->tcp, BACKLOG, on_connection);
    return rc < 0 ? err_set(err, ERR_FAILED, "%s: cannot listen: %s", address, uv_strerror(rc)) : 0;
}

void listener_close(struct listener *listener, void (*done)(struct listener *listener))
{
    listener->done = done;
    if (!uv_is_closing((uv_handle_t *)&listener->tcp)) {
        (void)uv_timer_stop(&listener->later);
        uv_close((uv_handle_t *)&listener->tcp, on_closed);
    }
}
