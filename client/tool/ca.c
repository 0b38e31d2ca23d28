/* starling ca: the federation's authority, on the server's machine. Each part opens the folder, does one thing and
 * closes it; a server may use the same folder all the while. Of a token only the token itself goes to stdout, once. */
#include "client/tool/cli.h"
#include "client/tool/human.h"
#include "client/tool/verbs.h"
#include "common/base/mem.h"
#include "common/config/nearest.h"
#include "common/trust/authority.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define TRUST      "starling-trust"
#define TEXT_MAX   ((size_t)4 << 20)
#define SECOND_MS  UINT64_C(1000)
#define HOUR_MS    (3600 * SECOND_MS)
#define LONGEST_MS (720 * HOUR_MS) /* who finds a token is let in */

#define TRUST_FLAG(dir)                                                                                                \
    {                                                                                                                  \
        "trust", FLAG_TEXT, dir, "DIR", "the authority's folder (" TRUST ")", 0, 0, false                              \
    }

static int64_t now_s(void)
{
    return (int64_t)time(NULL);
}

static int ca_init(int argc, char **argv)
{
    static const struct cli_verb verb = {
        .usage = "starling ca init [DIR] --address HOST:PORT",
        .about = "Makes a federation's authority, in DIR (" TRUST "): whoever has ca.key can let in anybody, so the "
                 "folder stays on the server's machine and in its backup. Exit 73 when there is one already, or "
                 "something else in DIR.",
        .examples = "  starling ca init --address coordinator.example:7640\n"
                    "  starling ca init /var/lib/starling-server/trust --address 192.0.2.7:7640\n",
    };
    const char *dir = TRUST, *address = NULL;
    const struct flag flags[] = {
        {"address", FLAG_TEXT, &address, "HOST:PORT", "where sites reach the server; it goes into their tokens", 0, 0,
         true},
    };
    int exit_code;
    struct err err;
    if (!cli_flags_optional_word(&verb, flags, 1, argc, argv, &dir, &exit_code)) {
        return exit_code;
    }
    if (authority_init(dir, address, now_s(), &err)) {
        return cli_fail(&err);
    }
    (void)fprintf(stderr,
                  "%s: a new authority for %s. Keep ca.key to yourself, and a backup of the folder.\nNext, the server, "
                  "and then for "
                  "each site:\n"
                  "  starling-server --trust %s --listen 0.0.0.0%s\n"
                  "  starling ca token --name NAME --trust %s\n",
                  dir, address, dir, strrchr(address, ':'), dir); /* authority_init has found the port */
    return 0;
}

static bool role_of(const char *text, uint32_t *out, struct err *err)
{
    if (role_parse(text, out) && *out != TRUST_SERVER) {
        return true;
    }
    (void)err_set(err, ERR_USAGE, "--role: \"%.64s\" is none of trainer, observer, operator", text);
    return false;
}

static void say_what_to_do(const char *name, uint32_t role, uint64_t valid_ms)
{
    char left[HUMAN_MAX];
    (void)fprintf(stderr,
                  "The line above lets in one %s, as %s, once, within %s. Hand it over where nobody listens; there:\n",
                  role_name(role), name, human_ms(valid_ms, left));
    (void)fprintf(stderr, "  %s\n",
                  role == TRUST_TRAINER    ? "starling-client --join TOKEN --images DIR"
                  : role == TRUST_OBSERVER ? "starling-client --join TOKEN --role observer --train DIR --test DIR"
                                           : "starling join TOKEN --out DIR, then starling status --identity DIR");
}

static int ca_token(int argc, char **argv)
{
    static const struct cli_verb verb = {
        .usage = "starling ca token --name NAME [--trust DIR] [--role trainer|observer|operator] [--valid 1h]",
        .about = "Prints a token, one line, with which one site joins the federation under this name: once, and soon. "
                 "The site makes its key itself and gets a certificate for it; the folder keeps no token.",
        .examples = "  starling ca token --name hospital-a\n"
                    "  starling ca token --name lab --role observer --valid 7d | ssh lab 'cat > token'\n",
    };
    const char *dir = TRUST, *name = NULL, *word = "trainer";
    uint64_t valid_ms = HOUR_MS;
    const struct flag flags[] = {
        {"name", FLAG_TEXT, &name, "NAME", "the site's name in the federation", 0, 0, true},
        TRUST_FLAG(&dir),
        {"role", FLAG_TEXT, &word, "ROLE", "trainer, observer or operator (trainer)", 0, 0, false},
        {"valid", FLAG_DURATION, &valid_ms, "TIME", "how long the token may wait (1h)", SECOND_MS, LONGEST_MS, false},
    };
    int exit_code;
    uint32_t role;
    char token[TOKEN_TEXT_MAX];
    struct authority *authority;
    struct err err;
    if (!cli_flags(&verb, flags, sizeof flags / sizeof flags[0], argc, argv, &exit_code)) {
        return exit_code;
    }
    if (!role_of(word, &role, &err) || authority_open(dir, &authority, &err)) {
        return cli_fail(&err);
    }
    int rc = authority_token(authority, name, role, (valid_ms + SECOND_MS - 1) / SECOND_MS, now_s(), token, &err);
    authority_close(authority);
    if (rc) {
        return cli_fail(&err);
    }
    struct buf line;
    buf_init(&line, TOKEN_TEXT_MAX + 1);
    rc = buf_printf(&line, "%s\n", token);
    exit_code = rc ? cli_fail((err_set(&err, rc, "%s", err_meaning(rc)), &err)) : cli_print(&line);
    buf_fini(&line);
    if (exit_code == 0) {
        say_what_to_do(name, role, valid_ms);
    }
    return exit_code;
}

/* Whether somebody was ever given a token of this name, as far as the folder knows: else it may be a slip, and who was
 * meant is still let in. */
static bool was_known(struct authority *authority, const char *name, struct err *err)
{
    struct authority_entry *names;
    struct nearest nearest = {0};
    size_t count;
    bool found = authority_names(authority, &names, &count, NULL) != 0;
    for (size_t i = 0; i < count && !found; i++) {
        found = strcmp(names[i].name, name) == 0;
        nearest_offer(&nearest, name, names[i].name);
    }
    if (!found) {
        (void)err_set(err, ERR_NOTFOUND,
                      "%s: revoked, but as far as this folder knows nobody of this name was ever given a token%s%s%s",
                      name, nearest.name ? "; did you mean \"" : "", nearest.name ? nearest.name : "",
                      nearest.name ? "\"?" : "");
    }
    mem_free(names);
    return found;
}

static int ca_revoke(int argc, char **argv)
{
    static const struct cli_verb verb = {
        .usage = "starling ca revoke NAME [--trust DIR]",
        .about =
            "Shuts a site out: every certificate of this name is void, and so are its tokens. A new token lets the "
            "name in again, with a new certificate. A running server looks for revocations by itself. Exit 65 when "
            "nobody of this name was ever given a token here; it is written down all the same.",
        .examples = "  starling ca revoke hospital-a\n",
    };
    const char *dir = TRUST, *name = NULL;
    const struct flag flags[] = {TRUST_FLAG(&dir)};
    int exit_code;
    struct authority *authority;
    struct err err;
    if (!cli_flags_word(&verb, flags, 1, argc, argv, "NAME", &name, &exit_code)) {
        return exit_code;
    }
    if (authority_open(dir, &authority, &err)) {
        return cli_fail(&err);
    }
    int rc = authority_revoke(authority, name, &err);
    rc = rc || was_known(authority, name, &err) ? rc : err.code;
    authority_close(authority);
    if (rc) {
        return cli_fail(&err);
    }
    (void)fprintf(stderr,
                  "%s is shut out; a new token (starling ca token --name %s, with its --role unless it trains) lets it "
                  "in again\n",
                  name, name);
    return 0;
}

struct listing {
    const char *address;
    struct authority_entry *tokens, *revoked;
    size_t tokens_count, revoked_count;
    int64_t now;
};

static uint64_t left_ms(const struct authority_entry *token, int64_t now)
{
    return (uint64_t)(token->expires - now) * SECOND_MS;
}

static json_t *list_json(const struct listing *listing)
{
    json_t *tokens = json_array(), *revoked = json_array();
    for (size_t i = 0; tokens && i < listing->tokens_count; i++) {
        const struct authority_entry *token = &listing->tokens[i];
        (void)json_array_append_new(
            tokens, json_pack("{s:s, s:s, s:I, s:I}", "name", token->name, "role", role_name(token->role), "generation",
                              (json_int_t)token->generation, "remaining_ms", (json_int_t)left_ms(token, listing->now)));
    }
    for (size_t i = 0; revoked && i < listing->revoked_count; i++) {
        (void)json_array_append_new(revoked, json_pack("{s:s, s:I}", "name", listing->revoked[i].name, "generation",
                                                       (json_int_t)listing->revoked[i].generation));
    }
    return json_pack("{s:s, s:o, s:o}", "address", listing->address, "tokens", tokens, "revoked", revoked);
}

static int list_text(const struct listing *listing, struct buf *out)
{
    char left[HUMAN_MAX];
    int rc = buf_printf(out, "address  %s\n", listing->address);
    if (rc == 0) {
        rc = buf_printf(out, listing->tokens_count ? "\n  %-20s %-9s %s\n" : "\nno unspent tokens\n", "unspent token",
                        "role", "expires in");
    }
    for (size_t i = 0; rc == 0 && i < listing->tokens_count; i++) {
        const struct authority_entry *token = &listing->tokens[i];
        rc = buf_printf(out, "  %-20s %-9s %s\n", token->name, role_name(token->role),
                        human_ms(left_ms(token, listing->now), left));
    }
    rc = rc ? rc
            : buf_printf(out, listing->revoked_count ? "\n  %-20s %s\n" : "\nnobody is revoked\n", "revoked", "up to");
    for (size_t i = 0; rc == 0 && i < listing->revoked_count; i++) {
        rc = buf_printf(out, "  %-20s %llu\n", listing->revoked[i].name,
                        (unsigned long long)listing->revoked[i].generation);
    }
    return rc;
}

static int print_listing(const struct listing *listing, bool json)
{
    struct buf text;
    struct err err;
    if (json) {
        return cli_print_json(list_json(listing));
    }
    buf_init(&text, TEXT_MAX);
    int rc = list_text(listing, &text);
    int exit_code = rc ? cli_fail((err_set(&err, rc, "%s", err_meaning(rc)), &err)) : cli_print(&text);
    buf_fini(&text);
    return exit_code;
}

static int ca_list(int argc, char **argv)
{
    static const struct cli_verb verb = {
        .usage = "starling ca list [--trust DIR] [--json]",
        .about =
            "Shows the tokens that are not spent, with the time that they have left, and who is revoked: a number is "
            "the last token whose certificate is void. Tokens themselves are never shown again.",
        .examples = "  starling ca list\n"
                    "  starling ca list --trust /var/lib/starling-server/trust --json | jq .revoked\n",
    };
    const char *dir = TRUST;
    bool json = false;
    const struct flag flags[] = {
        TRUST_FLAG(&dir),
        {"json", FLAG_SWITCH, &json, NULL, "one JSON object instead of tables", 0, 0, false},
    };
    int exit_code;
    struct authority *authority;
    struct err err;
    if (!cli_flags(&verb, flags, 2, argc, argv, &exit_code)) {
        return exit_code;
    }
    if (authority_open(dir, &authority, &err)) {
        return cli_fail(&err);
    }
    struct listing listing = {.address = authority_address(authority), .now = now_s()};
    int rc = authority_tokens(authority, listing.now, &listing.tokens, &listing.tokens_count, &err);
    rc = rc ? rc : authority_revoked(authority, &listing.revoked, &listing.revoked_count, &err);
    exit_code = rc ? cli_fail(&err) : print_listing(&listing, json);
    mem_free(listing.tokens);
    mem_free(listing.revoked);
    authority_close(authority);
    return exit_code;
}

static const struct {
    const char *name;
    const char *called; /* as messages call it */
    int (*run)(int argc, char **argv);
    const char *help;
} parts[] = {
    {"init", "ca init", ca_init, "makes the authority: once, before the first site joins"},
    {"token", "ca token", ca_token, "prints the line with which one site joins"},
    {"revoke", "ca revoke", ca_revoke, "shuts a site out, until it gets a new token"},
    {"list", "ca list", ca_list, "shows unspent tokens and who is shut out"},
};
#define PARTS (sizeof parts / sizeof parts[0])

static int help(void)
{
    (void)printf("Examples:\n"
                 "  starling ca init --address coordinator.example:7640\n"
                 "  starling ca token --name hospital-a\n"
                 "  starling ca revoke hospital-a\n"
                 "\n"
                 "Usage: starling ca PART [flags]\n"
                 "\n"
                 "Parts:\n");
    for (size_t i = 0; i < PARTS; i++) {
        (void)printf("  %-7s %s\n", parts[i].name, parts[i].help);
    }
    (void)printf("\n"
                 "starling ca PART --help explains a part. The authority is a folder on the server's machine, " TRUST
                 "\nunless another one is named. Run it as the folder's owner, or as root.\n");
    return 0;
}

int verb_ca(int argc, char **argv)
{
    const char *part = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < PARTS; i++) {
        if (strcmp(part, parts[i].name) == 0) {
            argv[1] = (char *)parts[i].called;
            return parts[i].run(argc - 1, argv + 1);
        }
    }
    if (strcmp(part, "--help") == 0 || strcmp(part, "-h") == 0) {
        return help();
    }
    if (*part) {
        (void)fprintf(stderr, "starling: unknown part \"%.64s\" of ca; starling ca --help lists them\n", part);
    } else {
        (void)fprintf(stderr, "starling: ca what? starling ca --help lists the parts\n");
    }
    return err_exit_code(ERR_USAGE);
}
