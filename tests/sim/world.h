/* The simulated federation: one real coordinator over its real store, N real client sessions, and between them a
 * network, disks and a clock that exist in memory only. Everything that happens follows from the seed.
 *
 *   world.c    the event queue, the clock, pauses and restarts
 *   faults.c   what goes wrong, and when
 *   net.c      connections: real frames, split anywhere, late, cut at any byte, or silently dead
 *   server.c   the coordinator's shell: actions, jobs, the simulated disk
 *   client.c   a session's shell: actions, its trainer and its disk
 *   check.c    the truth, computed apart from the code under test, and the invariants
 *   inside.c   what must hold inside the coordinator after each of its steps; mistakes that are planted there
 *
 * The first broken invariant is kept as `violation`, and ends the run. */
#ifndef STARLING_TESTS_SIM_WORLD_H
#define STARLING_TESTS_SIM_WORLD_H

#include "client/session/session.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "server/session/coordinator.h"
#include "tests/support/simdisk.h"

#define CLIENTS_MAX 6
#define ROUNDS_MAX  8
#define LINKS_MAX   64
#define FEATURES    8 /* numbers a row */
#define UPLOAD_ROWS 3
#define REMOTE_ROWS 4
#define JUDGED_ROWS 8 /* both, where somebody copies: fewer are not looked at (server/bank/screen.h) */
#define IDLE_MS     4000u

/* Mistakes that are planted, to see that the invariants find them. */
enum bug {
    BUG_NONE,
    BUG_COUNT_TWICE,       /* the server adds a contribution to the sum twice */
    BUG_ANNOUNCE_EARLY,    /* the server hears that a save is done before it has begun */
    BUG_LYING_DISK,        /* the disk says synced, and is not */
    BUG_OWN_FEATURES,      /* the server hands a client its own features */
    BUG_SERVER_NO_TICK,    /* the server's timer is lost */
    BUG_CLIENT_NO_TICK,    /* a client's timer is lost */
    BUG_STALE_UPDATE,      /* a client offers the update of the round before as this round's */
    BUG_FORGETFUL_WELCOME, /* the server forgets whom it counted when it greets */
    BUG_EARLY_COMMIT,      /* a client takes ACCEPTED for the end of the round */
    BUG_LOST_MOMENTUM,     /* a restarted server begins with a state of the optimiser that is all zero */
    BUG_SLOT_LEAKED,       /* an upload slot is never given back */
    BUG_LOST_PLACE,        /* who stands first in the line for a slot is dropped from it */
    BUG_WRONG_WEIGHT,      /* a contribution counts for an image more than it has */
    BUG_FORGOT_DELIVERED,  /* the round forgets that a member has delivered, and asks it again */
    BUG_JOB_END_LOST,      /* the end of a job is never heard of */
    BUG_NO_FOLDER_SYNC,    /* the checkpoint's file is synced, its folder is not */
    BUG_ERROR_IGNORED,     /* a save that failed is taken for one that did not */
    BUG_PENDING_LOST,      /* a restarted client forgets what it had handed in */
    BUG_REFUSAL_FORGOTTEN, /* what is refused for good is taken for damage, and asked for again for ever */
    BUG_REFUSED_STAYS,     /* what was added of an update, before it was refused, is left in the sum */
    BUG_NO_SLOTS,          /* the upload slots that may be in use fall to none */
    BUG_WALL_CLOCK,        /* the server measures its time on the wall clock, which jumps */
    BUG_SPOOL_STALE,       /* in the spool lies the update of an earlier round */
    BUG_NORMS_LOST,        /* a restarted server has forgotten how long updates were */
    BUG_RECALLED_STAYS,    /* what was added before a round was recalled is left in the sum */
    BUG_STATISTICS_FREE,   /* the statistics of an update may be as long as they like */
    BUG_LEECH,             /* the server hands features to whoever asks */
    BUG_COPIES_STAY,       /* rows of others get into the bank once more */
    BUG_COUNT
};

struct scenario {
    uint64_t seed;
    enum bug bug;
    bool verbose;
    bool calm; /* no faults */
    uint32_t clients, rounds, min_clients, upload_slots, deadline_ms;
    bool one_dies;      /* one client goes away for good early on */
    bool straggler;     /* the last client needs about as long as a round may take */
    bool features;      /* the plan exchanges features */
    bool copier;        /* the last client hands on what it has received, once it has received any */
    uint32_t optimizer; /* of the plan */
    uint32_t rule;      /* of the plan */
    bool hot;           /* the first client's update of hot_round is out of range, until somebody repairs it, */
    bool hot_long;      /* or in range, and its hot_part much longer than the others' */
    uint32_t hot_part;  /* of enum norm_part */
    uint32_t hot_round;
};
/* What a seed stands for. */
struct scenario scenario_of(uint64_t seed);

/* What a set of seeds must have gone through, lest it prove nothing: events of the log, and what the world does. */
extern const char *const sights[];
#define SIGHTS_MAX 40

enum who { WHO_WORLD, WHO_SERVER, WHO_CLIENT /* + index */ };

enum happening {
    HAPPEN_FAULT,
    HAPPEN_SERVER_START,
    HAPPEN_SERVER_OPENED, /* link */
    HAPPEN_CLIENT_START,
    HAPPEN_CLIENT_CONNECTED, /* link */
    HAPPEN_CONNECT,          /* link: a connection attempt reaches the server's machine */
    HAPPEN_DELIVER,          /* link, side of the sender */
    HAPPEN_DRAINED,          /* link, side */
    HAPPEN_CLOSED,           /* link, side, code */
    HAPPEN_JOB_BEGIN,
    HAPPEN_JOB_DONE,
    HAPPEN_PREPARED,
    HAPPEN_TRAIN_STEP,
    HAPPEN_TRAIN_END,
    HAPPEN_TRAINED,
};

struct entry {
    uint64_t at_ms, order;
    enum happening kind;
    uint32_t who, epoch; /* of a process: entries of a dead one are void */
    uint32_t link, link_epoch, side;
    int code;
};

enum { SIDE_CLIENT, SIDE_SERVER };

struct end {
    bool open;    /* its process has it */
    bool closing; /* the process has closed it, and listens no more */
    struct frame_decoder decoder;
    struct buf out; /* on the way to the other end */
    bool moving;    /* a DELIVER entry exists */
    bool ends;      /* after what is on the way, the other end sees the connection closed */
    int end_code;   /* why */
    bool mute;      /* nothing that it still sends arrives */
    uint64_t heard_ms;
};

struct link {
    bool used;
    bool dead;      /* nothing goes through any more, and nobody is told */
    bool slow;      /* bytes trickle */
    bool disturbed; /* something has been done to it or its processes, so that it may fall silent */
    uint32_t epoch, client;
    struct end ends[2];
};

struct process {
    bool up;
    bool paused;
    uint64_t resume_ms;
    uint32_t epoch;
};

struct server {
    struct process process;
    struct coordinator *coordinator;
    struct store *store;
    struct spool spool;
    struct job *jobs[16]; /* to be run one after the other */
    uint32_t jobs_count;
    bool job_running;
    int job_result;
    struct err job_reason;
    bool die_in_save;    /* the machine goes down in the middle of the next save */
    bool die_after_save; /* ... when it is durable, and nobody has heard of it */
    bool stopping;
    uint64_t refuses_until_ms, full_until_ms, shaky_until_ms;
    struct simdisk disk;
};

/* What a client's disk holds. */
struct client_disk {
    struct hash128 instance;
    bool has_saved;
    struct hash128 run, plan;
    uint32_t round;
    struct contribution *pending;
    uint64_t full_until_ms;
};

struct client {
    struct process process;
    char name[NAME_MAX_BYTES];
    uint32_t index;
    struct session *session;
    uint32_t link;                 /* LINKS_MAX: none */
    struct client_disk disk, copy; /* what somebody has copied from it, to put it back later */
    bool has_copy;
    uint32_t put_back; /* when that was done last, the round in progress: what it knew of that and before may be gone */
    struct contribution *work; /* what the trainer will have made */
    uint32_t work_epoch;
    bool cancelled, stopping, finished, gone;
    uint32_t refused; /* on its connection: the round that was declined for good; 0: none */
};

/* What is known to be true, learned from the trainers and from durable checkpoints alone. */
struct truth {
    uint32_t durable; /* newest checkpoint that survives any crash */
    bool started;
    float *params[ROUNDS_MAX + 1];                     /* after each durable round */
    float *moments[ROUNDS_MAX + 1];                    /* [2, total]: of the optimiser, likewise */
    double norms[2][ROUNDS_MAX + 1];                   /* what was usual of a part in what counted */
    struct bytes *update[ROUNDS_MAX + 1][CLIENTS_MAX]; /* what training that round yields, whenever it is done */
    bool counted[ROUNDS_MAX + 1][CLIENTS_MAX];
    bool committed[ROUNDS_MAX + 1][CLIENTS_MAX];
    bool dropped[ROUNDS_MAX + 1][CLIENTS_MAX];
    bool offered[ROUNDS_MAX + 1][CLIENTS_MAX];
};

struct world {
    struct scenario scenario;
    struct rng rng;
    uint64_t now_ms, order, steps;
    uint64_t faults_end_ms, latest_ms; /* a run that is not over by then waits for ever */
    struct entry *queue;               /* a heap */
    size_t queue_count, queue_room;
    char violation[512];  /* empty: none so far */
    bool planted;         /* a mistake that is to happen once has happened */
    bool stuck, repaired; /* hot: a round is stuck; the client has been repaired */
    bool recalled;        /* a round was, and BUG_RECALLED_STAYS is to come */
    int64_t wall_ms;      /* the wall clock, which jumps, minus the monotonic one */
    uint64_t faults;
    uint64_t seen[SIGHTS_MAX]; /* of sights[] */

    struct plan plan;
    struct buf plan_bytes;
    struct layout *layout;
    struct hash128 run;
    struct log log;
    const char *speaker; /* of what is logged now */
    uint8_t hearing;     /* type of the message that a client handles now; 0: none */

    struct server server;
    struct client clients[CLIENTS_MAX];
    struct link links[LINKS_MAX];
    struct truth truth;
};

/* world.c. The final parameters' hash, when there is no violation. */
void world_run(struct world *world, const struct scenario *scenario);
struct hash128 world_result(const struct world *world);
void world_free(struct world *world);
void violate(struct world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));
void say(struct world *world, const char *who, const char *format, ...) __attribute__((format(printf, 3, 4)));
void sight(struct world *world, const char *what);
void schedule(struct world *world, uint64_t in_ms, struct entry entry);
uint32_t chance(struct world *world, uint32_t n);                     /* uniform in [0, n) */
uint32_t between(struct world *world, uint32_t least, uint32_t most); /* inclusive */
struct process *process_of(struct world *world, uint32_t who);

/* faults.c */
void faults_next(struct world *world);

/* net.c */
uint32_t net_connect(struct world *world, uint32_t client);
void net_send(struct world *world, uint32_t link, uint32_t side, struct msg *msg);
void net_close(struct world *world, uint32_t link, uint32_t side);
void net_cut(struct world *world, uint32_t link, bool silently);
void net_disturb(struct world *world, uint32_t who);
void net_process_gone(struct world *world, uint32_t who, bool silently);
void net_happens(struct world *world, const struct entry *entry);
uint64_t net_next_ms(const struct world *world); /* the server's idle time-outs */
void net_check_idle(struct world *world);
void net_free(struct world *world);

/* server.c */
void server_start(struct world *world);
void server_crash(struct world *world, bool restart);
void server_stop(struct world *world);
uint64_t server_clock_ms(const struct world *world); /* what the server takes for now_ms */
void server_event(struct world *world, struct event *event);
void server_happens(struct world *world, const struct entry *entry);
void server_free(struct world *world);

/* client.c */
void client_start(struct world *world, struct client *client);
void client_crash(struct world *world, struct client *client, bool restart);
void client_stop(struct world *world, struct client *client);
void client_event(struct world *world, struct client *client, struct session_event *event);
void client_happens(struct world *world, struct client *client, const struct entry *entry);
void client_put_back(struct world *world, struct client *client); /* its disk; the first time: copies it */
void client_free(struct client *client);
uint64_t client_images(uint32_t index);

/* inside.c: after a step of the coordinator. */
void inside_check(struct world *world);
void inside_check_client(struct world *world, const struct client *client);
void inside_plant(struct world *world);
void inside_plant_job(struct world *world, struct job *job);
void inside_plant_result(struct world *world, struct job *job);

/* check.c */
void features_row(float *row, uint32_t client, uint32_t round, uint32_t index);
struct contribution *train(struct world *world, uint32_t client, uint32_t round, const float *model,
                           const float *remote, uint32_t rows);
void check_train(struct world *world, const struct client *client, const struct session_action *action);
void check_durable(struct world *world, const struct checkpoint *checkpoint);
void check_image(struct world *world);
void check_said(struct world *world, uint32_t client, const struct msg *msg);
void check_offer(struct world *world, uint32_t client, uint32_t round);
void check_silence(struct world *world, uint32_t link, const char *who);
void check_commit(struct world *world, uint32_t client, uint32_t round);
void check_drop(struct world *world, uint32_t client, uint32_t round);
void check_end(struct world *world);
void check_free(struct world *world);

#endif
