/* The daemon's inside. For the files of this room alone.
 *
 *   daemon.c   start, the loop, signals, the end; events into the coordinator, actions out of it
 *   guard.c    TLS: who may come in, with which certificate, and until when
 *   peers.c    connections, by the small numbers that the coordinator knows them by
 *   jobs.c     what takes long: one job at a time on libuv's thread pool
 *   machine.c  what the machine is asked for: clocks, memory, open files */
#ifndef STARLING_SHELL_INTERNAL_H
#define STARLING_SHELL_INTERNAL_H

#include "common/base/reminder.h"
#include "common/net/conn.h"
#include "common/net/ticker.h"
#include "server/session/coordinator.h"
#include "server/shell/daemon.h"
#include "server/store/store.h"

struct daemon;

/* A connection; its place in daemon.peers is its number. */
struct peer {
    struct daemon *daemon;
    struct conn *conn; /* NULL: the number is free */
    bool closing;      /* nothing more is to be said to it */
    int64_t expires;   /* unix seconds: when its certificate does; 0: it has none */
    int64_t renewed;   /* when it last asked for another */
};

/* ---- guard.c ---- */

struct guard {
    struct authority *authority; /* NULL: plain */
    struct tls_setup *setup;     /* what new connections are made of */
    int64_t setup_since;         /* unix seconds: when it was made */
    uint64_t busy_until_ms;      /* when tokens are looked at again */
    struct err trouble;          /* with the folder, as it was said last; code 0: there is none */
    struct reminder reminder;    /* to say it again */
    uv_timer_t timer;
};
int guard_start(struct daemon *daemon, struct err *err);
void guard_stop(struct daemon *daemon); /* lets go of the timer, within a turn of the loop */
void guard_fini(struct daemon *daemon);
/* With TLS: a connection is open. False: not for the coordinator; it is being closed, or may ask for a certificate. */
bool guard_admit(struct peer *peer);
void guard_enrol(struct peer *peer, const struct msg_enrol *enrol);

/* ---- peers.c ---- */

struct peers {
    struct peer *items; /* [room] */
    uint32_t room;
    uint32_t refusing; /* further connections that are being told that there is no room */
    bool full;         /* said in the log, once until there is room again */
};
/* What of the limit on open files is not for peers: the state's files while a round is saved, and REFUSALS_MAX. */
#define FILES_RESERVE 32
#define REFUSALS_MAX  16
int peers_init(struct daemon *daemon, uint32_t room);
void peers_fini(struct daemon *daemon);
bool peers_accept(struct daemon *daemon); /* false: for want of memory it was not taken */
void peers_send(struct daemon *daemon, uint32_t number, struct msg *msg);
void peers_close(struct daemon *daemon, uint32_t number);
void peers_drop(struct daemon *daemon, uint32_t number);
void peers_shake(struct daemon *daemon, uint32_t number);
void peers_pause(struct daemon *daemon, uint32_t number, uint64_t pause_ms);
void peers_close_all(struct daemon *daemon);
uint32_t peer_number(const struct peer *peer);
void peer_tell(struct peer *peer, struct event event); /* to the coordinator, with the peer's number */
void peer_close(struct peer *peer, uint64_t linger_ms);
/* REJECT, of the shell's own; retry_after_ms 0: never. */
struct msg peer_rejection(enum reject_code code, uint64_t retry_after_ms, const char *text);

/* ---- jobs.c ---- */

struct jobs {
    struct job **waiting; /* in order */
    uint32_t count, capacity;
    struct job *current; /* at work; NULL: none */
    uv_work_t work;
    int result;
    struct err reason;
};
/* ERR_NOMEM: it will not be run. */
int jobs_push(struct daemon *daemon, struct job *job);
void jobs_fini(struct daemon *daemon);

/* ---- machine.c ---- */

int64_t machine_unix_ms(void);
static inline int64_t machine_unix_s(void)
{
    return machine_unix_ms() / 1000;
}
uint64_t machine_peak_rss_bytes(void);
/* How many files this process may open, and how many it has. */
uint64_t machine_files_most(void);
uint64_t machine_files_open(void);

/* ---- daemon.c ---- */

struct daemon {
    const struct server_options *options;
    const struct log *log;
    struct layout *layout;
    struct buf plan; /* canonical bytes */
    struct store *store;
    struct spool spool;
    struct coordinator *coordinator;
    struct actions actions;
    char bound[300];
    char address_file[DISK_PATH_MAX];

    uv_loop_t loop;
    struct listener listener;
    struct ticker ticker;
    uv_signal_t terminate, interrupt;
    struct guard guard;
    struct peers peers;
    struct jobs jobs;
    bool stopping; /* a signal came */
    bool leaving;  /* the loop is on its way out */
    int result;
};
static inline bool spool_is_wanted(const struct daemon *daemon)
{
    return daemon->options->plan.aggregation.rule != AGGREGATION_MEAN;
}
/* Takes one event through the coordinator and carries out what follows. */
void daemon_event(struct daemon *daemon, struct event *event);
/* Ends the loop as soon as what was said is written. */
void daemon_leave(struct daemon *daemon, int result);

#endif
