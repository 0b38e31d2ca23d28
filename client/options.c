/* The keys of client.yaml: what is this site's business alone. What all sites must agree on comes from the server. */
#include "client/options.h"

#include "client/shell/client.h"

#include <stddef.h>

static const char *const formats[] = {"text", "json", NULL};
static const char *const roles[] = {"trainer", "observer", NULL};
static const char *const backends[] = {"auto", "onednn", "openblas", NULL};
static const char *const precisions[] = {"auto", "f32", "bf16", NULL};
static const char *const winograds[] = {"auto", "off", NULL};
static const char *const levels[] = {"debug", "info", "warn", "error", NULL};

#define AT(field)   .offset = offsetof(struct client_options, field)
#define TEXT(field) AT(field), .size = sizeof((struct client_options *)0)->field

/* clang-format off */
static const struct option options[] = {
    {"server", OPTION_TEXT, TEXT(server),
     .help = "HOST:PORT of the coordinator. Empty: where the token that this site joined with says, or else 127.0.0.1:7640."},
    {"role", OPTION_CHOICE, AT(role), .choices = roles, .standard = "trainer",
     .help = "trainer: trains on its images and contributes. observer: evaluates each aggregated model on labelled images and tells the server; it contributes nothing, and no round waits for it."},
    {"images", OPTION_TEXT, TEXT(images),
     .help = "Folder of JPEG and PNG images, searched to any depth. They are read, never changed and never sent. A trainer's must be set."},
    {"train", OPTION_TEXT, TEXT(train),
     .help = "An observer's labelled images to compare with: one folder a class. They stay where they are."},
    {"test", OPTION_TEXT, TEXT(test),
     .help = "An observer's labelled images to name by their nearest neighbours (k = 200, temperature 0.1, as starling eval does)."},
    {"name", OPTION_TEXT, TEXT(name),
     .help = "Of this site: 1 to 64 characters of A-Z a-z 0-9 . _ -, one of its own in the federation. Empty: the certificate's, or else the host's name."},
    {"state", OPTION_TEXT, TEXT(state),
     .help = "Folder of what is kept between rounds and restarts, and of decoded images. Empty: starling-client-NAME in the working folder."},
    {"identity", OPTION_TEXT, TEXT(identity),
     .help = "Folder of this site's key, which is made here and never sent, and its certificate; --join TOKEN fills it. With one, connections are encrypted and both sides prove who they are. Empty: identity in the state folder."},
    {"threads", OPTION_U32, AT(threads), .least = 0, .most = 256, .standard = "0",
     .help = "To train or evaluate with; 0: all processors."},
    {"nice", OPTION_U32, AT(nice), .least = 0, .most = 19, .standard = "10",
     .help = "How far to stand back behind other programs of this machine (nice); above 0 they go first at the disk too."},
    {"compute.backend", OPTION_CHOICE, AT(compute.backend), .choices = backends, .standard = "auto",
     .help = "What computes convolutions; auto: oneDNN where it was built in."},
    {"compute.precision", OPTION_CHOICE, AT(compute.precision), .choices = precisions, .standard = "auto",
     .help = "Of maps and products; parameters, sums and what is sent are f32 in any case. auto: bf16 where this processor has it and a test at the start finds it faster and right."},
    {"compute.winograd", OPTION_CHOICE, AT(compute.winograd), .choices = winograds, .standard = "auto",
     .help = "Fewer multiplications for 3x3 convolutions, with a little more rounding. auto: where a test at the start finds it faster and right."},
    {"compute.kernels", OPTION_TEXT, TEXT(compute.kernels),
     .help = "File of what those tests measured. While it stays, so do the kernels, and so does every bit of a repeated round. Empty: kernels in the state folder."},
    {"share_features", OPTION_BOOL, AT(share_features), .standard = "true",
     .help = "Whether features of this site's images are given to the other sites, as the plan has it. false: none leave, none of the others' come, and this site trains without fusion and matching; it still contributes updates."},
    {"reproducible", OPTION_BOOL, AT(reproducible), .standard = "false",
     .help = "For experiments: the order of this site's images and their views follow from the plan and the site's name alone, so that another machine computes the same bits. Other sites can then make the same views and find images among the features that this site shares. false: they follow from a secret too, which is drawn once and lies in the state folder; a restart goes on with the same."},
    {"stay", OPTION_BOOL, AT(stay), .standard = "false",
     .help = "Whether to stay connected after the last round, instead of ending with exit code 0."},
    {"log.format", OPTION_CHOICE, AT(log.format), .choices = formats, .standard = "text",
     .help = "Lines on standard error."},
    {"log.level", OPTION_CHOICE, AT(log.level), .choices = levels, .standard = "info",
     .help = "The least important events to be logged."},
};
/* clang-format on */

static const struct option_table table = {
    .prefix = "", .base = 0, .options = options, .count = sizeof options / sizeof options[0]};
const struct option_set client_option_set = {.tables = &table, .count = 1};
