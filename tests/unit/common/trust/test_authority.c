/* The authority's folder: who gets in, how often, until when, and what becomes of it when files are damaged, readable
 * by others, or used by two processes at once. tests/unit/planted.py holds these tests to the mistakes that they must
 * find. */
#include "tests/unit/common/trust/trust_world.h"

#include <sys/file.h>
#include <sys/wait.h>

static int redeem(struct authority *authority, const struct token *token, int64_t now, struct trust_subject *out)
{
    struct err err;
    int rc = authority_redeem(authority, token->secret, now, out, &err);
    assert_true(rc == 0 || err.text[0]);
    assert_true(rc == 0 || out->name[0] == 0);
    return rc;
}

static size_t tokens_of(struct world *w, int64_t now)
{
    struct authority_entry *list;
    size_t count;
    assert_int_equal(authority_tokens(w->authority, now, &list, &count, NULL), 0);
    mem_free(list);
    return count;
}

static void path_of(const struct world *w, const char *name, char out[192])
{
    (void)snprintf(out, 192, "%s/%s", w->dir, name);
}

/* The path of the one token's file. */
static int take_name(void *arg, const char *name)
{
    (void)snprintf(arg, 96, "tokens/%s", name);
    return 0;
}

static void token_path(const struct world *w, char out[192])
{
    char folder[192], name[96] = "";
    path_of(w, "tokens", folder);
    assert_int_equal(disk_posix.ops->list(NULL, folder, take_name, name), 0);
    path_of(w, name, out);
}

static void a_new_authority(void **state)
{
    struct world *w = *state;
    struct stat st;
    struct err err;
    char path[192];
    static const char *const files[] = {"ca.key", "ca.pem", "address", "generation", "revoked", "names", "lock"};
    assert_int_equal(stat(w->dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        path_of(w, files[i], path);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
    }
    assert_string_equal(authority_address(w->authority), ADDRESS);

    path_of(w, "ca.key", path);
    struct file before = file_read(path);
    assert_int_equal(authority_init(w->dir, "other:1", NOW, &err), ERR_CANTCREATE);
    assert_int_equal(err_exit_code(err.code), 73);
    struct file after = file_read(path);
    assert_int_equal(after.len, before.len);
    assert_memory_equal(after.data, before.data, before.len);
    mem_free(before.data);
    mem_free(after.data);
    world_reopen(w);
    assert_string_equal(authority_address(w->authority), ADDRESS);

    path_of(w, "new", path);
    static const char *const addresses[] = {"", "h", "h:0", "0.0.0.0:7640", "[::]:7640", "a,b:1"};
    for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        assert_int_equal(authority_init(path, addresses[i], NOW, &err), ERR_USAGE);
        assert_int_not_equal(stat(path, &st), 0);
    }
    char longest[400];
    memset(longest, 'h', sizeof longest);
    longest[399] = 0;
    assert_int_equal(authority_init(path, longest, NOW, &err), ERR_USAGE);
    assert_int_equal(mkdir(path, 0755), 0);
    assert_int_equal(chmod(path, 0755), 0);
    assert_int_equal(authority_init(path, ADDRESS, NOW, &err), ERR_CONFIG);
    assert_non_null(strstr(err.text, "chmod 700 "));
}

/* An init that was cut off has left no key, and is simply done again. */
static void a_half_made_authority_is_made_again(void **state)
{
    struct world *w = *state;
    struct authority *authority;
    char path[192];
    path_of(w, "ca.key", path);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(authority_open(w->dir, &authority, NULL), ERR_NOTFOUND);
    assert_null(authority);
    path_of(w, "address.tmp", path);
    file_write(path, "x", 1);
    assert_int_equal(authority_init(w->dir, "[2001:db8::1]:7640", NOW, NULL), 0);
    world_reopen(w);
    assert_string_equal(authority_address(w->authority), "[2001:db8::1]:7640");
}

/* With its ca.pem, its list of revocations and its numbers a key that is found again is of use. */
static void an_authority_without_its_key_is_not_made_anew(void **state)
{
    struct world *w = *state;
    struct authority *authority;
    struct err err;
    char text[TOKEN_TEXT_MAX], key[192], away[192];
    assert_int_equal(authority_token(w->authority, "a", TRUST_TRAINER, HOUR, NOW, text, NULL), 0);
    path_of(w, "ca.key", key);
    path_of(w, "address.tmp", away); /* any name that it has */
    assert_int_equal(rename(key, away), 0);
    assert_int_equal(authority_init(w->dir, ADDRESS, NOW, &err), ERR_CANTCREATE);
    assert_non_null(strstr(err.text, "restore"));
    assert_int_equal(authority_open(w->dir, &authority, &err), ERR_NOTFOUND);
    assert_non_null(strstr(err.text, "ca.key is missing"));
    assert_int_equal(rename(away, key), 0);
    world_reopen(w);
}

static void a_folder_of_other_things_is_left_alone(void **state)
{
    struct world *w = *state;
    static const char *const names[] = {"thesis.tex", "address.txt", "ca", ".tmp", "tokens.tmp.tmp"};
    char path[192], inside[256];
    struct stat st;
    struct err err;
    path_of(w, "home", path);
    assert_int_equal(mkdir(path, 0755), 0);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        (void)snprintf(inside, sizeof inside, "%s/%s", path, names[i]);
        file_write(inside, "x", 1);
        assert_int_equal(authority_init(path, ADDRESS, NOW, &err), ERR_CANTCREATE);
        assert_non_null(strstr(err.text, names[i]));
        assert_int_equal(unlink(inside), 0);
        assert_int_equal(rmdir(path), 0); /* nothing was made */
        assert_int_equal(mkdir(path, 0755), 0);
    }
    path_of(w, "thesis.tex", inside);
    file_write(inside, "x", 1);
    assert_int_equal(authority_init(w->dir, ADDRESS, NOW, &err), ERR_CANTCREATE);
    assert_non_null(strstr(err.text, "ca.key")); /* that there is one weighs more */
    assert_int_equal(stat(path, &st), 0);
    path_of(w, "volume", path);
    path_of(w, "volume/lost+found", inside);
    assert_int_equal(mkdir(path, 0700) || mkdir(inside, 0700), 0);
    assert_int_equal(authority_init(path, ADDRESS, NOW, NULL), 0);
}

static void a_token_is_good_once(void **state)
{
    struct world *w = *state;
    struct trust_subject subject;
    struct token token = world_token(w, "site-a", TRUST_OBSERVER, NOW), wrong = token;
    uint8_t pin[32];
    assert_string_equal(token.address, ADDRESS);
    assert_string_equal(token.name, "site-a");
    assert_int_equal(token.role, TRUST_OBSERVER);
    assert_int_equal(token.expires, NOW + HOUR);
    size_t len;
    X509 *ca;
    const uint8_t *der = authority_ca_der(w->authority, &len);
    assert_int_equal(certificate_read(der, len, &ca, NULL), 0);
    assert_int_equal(certificate_pin(ca, pin, NULL), 0);
    assert_memory_equal(token.pin, pin, 32);
    X509_free(ca);

    for (size_t i = 0; i < 32; i++) {
        wrong.secret[i] ^= 1;
        assert_int_equal(redeem(w->authority, &wrong, NOW, &subject), ERR_ACCESS);
        wrong.secret[i] ^= 1;
    }
    world_reopen(w); /* the server was restarted */
    assert_int_equal(redeem(w->authority, &token, NOW, &subject), 0);
    assert_string_equal(subject.name, "site-a");
    assert_int_equal(subject.role, TRUST_OBSERVER);
    assert_int_equal(subject.generation, 1);
    assert_int_equal(redeem(w->authority, &token, NOW, &subject), ERR_ACCESS);
    world_reopen(w);
    assert_int_equal(redeem(w->authority, &token, NOW, &subject), ERR_ACCESS);

    char text[TOKEN_TEXT_MAX];
    static const char *const names[] = {"", "a b", "a/b",
                                        "12345678901234567890123456789012345678901234567890123456789012345"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        assert_int_equal(authority_token(w->authority, names[i], TRUST_TRAINER, HOUR, NOW, text, NULL), ERR_USAGE);
        assert_int_equal(authority_revoke(w->authority, names[i], NULL), ERR_USAGE);
    }
    assert_int_equal(authority_token(w->authority, "-x", TRUST_TRAINER, HOUR, NOW, text, NULL), ERR_USAGE);
    assert_int_equal(authority_token(w->authority, "a", TRUST_SERVER, HOUR, NOW, text, NULL), ERR_DATA);
    assert_int_equal(authority_token(w->authority, "a", TRUST_TRAINER, 0, NOW, text, NULL), ERR_USAGE);
    assert_int_equal(authority_token(w->authority, "a", TRUST_TRAINER, UINT64_MAX, NOW, text, NULL), ERR_USAGE);
    assert_string_equal(text, "");
    assert_int_equal(tokens_of(w, NOW), 0);
}

#define RACERS 4
#define PRIZES 40

static int race(struct world *w, const struct token *tokens, int start)
{
    struct authority *authority;
    struct trust_subject subject;
    char go;
    int won = 0;
    if (authority_open(w->dir, &authority, NULL) || read(start, &go, 1) != 0) {
        return 255;
    }
    for (int i = 0; i < PRIZES; i++) {
        int rc = authority_redeem(authority, tokens[i].secret, NOW, &subject, NULL);
        if (rc != 0 && rc != ERR_ACCESS) {
            return 255;
        }
        won += rc == 0;
    }
    authority_close(authority);
    return won;
}

/* The server and a command, or two servers that should not be: all try all tokens at the same time. */
static void a_token_is_good_once_among_processes(void **state)
{
    struct world *w = *state;
    struct token tokens[PRIZES];
    int start[2], won = 0, status;
    pid_t racers[RACERS];
    for (int i = 0; i < PRIZES; i++) {
        tokens[i] = world_token(w, "site-a", TRUST_TRAINER, NOW);
    }
    assert_int_equal(pipe(start), 0);
    for (int i = 0; i < RACERS; i++) {
        racers[i] = fork();
        assert_true(racers[i] >= 0);
        if (racers[i] == 0) {
            (void)close(start[1]);
            _exit(race(w, tokens, start[0]));
        }
    }
    (void)close(start[1]); /* go */
    (void)close(start[0]);
    for (int i = 0; i < RACERS; i++) {
        assert_int_equal(waitpid(racers[i], &status, 0), racers[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) <= PRIZES);
        won += WEXITSTATUS(status);
    }
    assert_int_equal(won, PRIZES);
    assert_int_equal(tokens_of(w, NOW), 0);
}

static void a_token_expires(void **state)
{
    struct world *w = *state;
    struct trust_subject subject;
    char path[192];
    struct stat st;
    struct token last = world_token(w, "site-a", TRUST_TRAINER, NOW);
    assert_int_equal(redeem(w->authority, &last, NOW + HOUR, &subject), 0); /* the last second */

    struct token late = world_token(w, "site-a", TRUST_TRAINER, NOW);
    token_path(w, path);
    assert_int_equal(tokens_of(w, NOW + HOUR), 1);
    assert_int_equal(tokens_of(w, NOW + HOUR + 1), 0); /* not shown, and still there */
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(redeem(w->authority, &late, NOW + HOUR + 1, &subject), ERR_ACCESS);
    assert_int_not_equal(stat(path, &st), 0);
    assert_int_equal(redeem(w->authority, &late, NOW, &subject), ERR_ACCESS); /* nor when the clock is set back */

    (void)world_token(w, "site-b", TRUST_TRAINER, NOW);
    token_path(w, path);
    (void)world_token(w, "site-c", TRUST_TRAINER, NOW + HOUR + 1); /* sweeps */
    assert_int_not_equal(stat(path, &st), 0);
    assert_int_equal(tokens_of(w, NOW), 1);
}

static void a_revocation_is_for_what_was(void **state)
{
    struct world *w = *state;
    struct trust_subject first = world_join(w, "site-a"), other = world_join(w, "site-b"),
                         latest = world_join(w, "site-a");
    struct trust_subject again;
    struct token spare = world_token(w, "site-b", TRUST_TRAINER, NOW);
    struct credential *credential;
    assert_true(first.generation < other.generation && other.generation < latest.generation);
    assert_false(authority_is_revoked(w->authority, &latest));
    struct token unspent = world_token(w, "site-a", TRUST_TRAINER, NOW);
    const struct trust_subject newest = {.name = "site-a", .role = TRUST_TRAINER, .generation = latest.generation + 2};

    assert_int_equal(authority_revoke(w->authority, "site-a", NULL), 0);
    for (int i = 0; i < 2; i++) {
        assert_true(authority_is_revoked(w->authority, &first));
        assert_true(authority_is_revoked(w->authority, &latest));
        assert_true(authority_is_revoked(w->authority, &newest)); /* the very number that was written down */
        assert_false(authority_is_revoked(w->authority, &other));
        world_reopen(w);
    }
    assert_int_equal(tokens_of(w, NOW), 1); /* site-b's */
    assert_int_equal(redeem(w->authority, &unspent, NOW, &again), ERR_ACCESS);
    assert_int_equal(redeem(w->authority, &spare, NOW, &again), 0);
    assert_false(authority_is_revoked(w->authority, &again));

    again = world_join(w, "site-a");
    assert_false(authority_is_revoked(w->authority, &again));
    assert_true(again.generation > newest.generation);
    assert_true(authority_is_revoked(w->authority, &latest));

    assert_int_equal(authority_revoke(w->authority, "site-a", NULL), 0); /* once more */
    assert_true(authority_is_revoked(w->authority, &again));
    assert_int_equal(authority_revoke(w->authority, "local", NULL), 0);
    assert_int_equal(authority_credential(w->authority, "local", TRUST_OPERATOR, DAY, NOW, &credential, NULL), 0);
    assert_false(authority_is_revoked(w->authority, credential_subject(credential)));
    credential_free(credential);

    struct authority_entry *list;
    size_t count;
    assert_int_equal(authority_revoked(w->authority, &list, &count, NULL), 0);
    assert_int_equal(count, 2);
    assert_string_equal(list[0].name, "local");
    assert_string_equal(list[1].name, "site-a");
    assert_int_equal(list[1].generation, again.generation);
    mem_free(list);
}

/* A revocation that was written and then cut off, before it had removed the name's tokens. */
static void a_revocation_that_was_cut_off_holds(void **state)
{
    struct world *w = *state;
    struct trust_subject subject;
    char path[192];
    struct token token = world_token(w, "site-a", TRUST_TRAINER, NOW);
    path_of(w, "revoked", path);
    file_write(path, "site-a 1\n", 9);
    assert_int_equal(redeem(w->authority, &token, NOW, &subject), ERR_ACCESS);
}

/* Another process revokes; this one hears of it when it reloads, and no earlier. */
static void reload(void **state)
{
    struct world *w = *state;
    struct trust_subject subject = world_join(w, "site-a");
    struct authority *other;
    char path[192];
    assert_int_equal(authority_reload(w->authority, NULL), 0);
    assert_int_equal(authority_open(w->dir, &other, NULL), 0);
    assert_int_equal(authority_revoke(other, "site-a", NULL), 0);
    authority_close(other);
    assert_false(authority_is_revoked(w->authority, &subject));
    assert_int_equal(authority_reload(w->authority, NULL), 0);
    assert_true(authority_is_revoked(w->authority, &subject));

    path_of(w, "revoked", path);
    file_write(path, "site-a 1", 8);
    assert_int_equal(authority_reload(w->authority, NULL), ERR_DATA);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(authority_reload(w->authority, NULL), ERR_NOTFOUND);
    assert_true(
        authority_is_revoked(w->authority, &subject)); /* what cannot be read revokes nothing, and pardons nobody */
    assert_int_not_equal(authority_revoke(w->authority, "site-b", NULL), 0);
}

static void what_others_may_use_is_refused(void **state)
{
    struct world *w = *state;
    struct authority *authority;
    struct err err;
    char path[192];
    static const mode_t modes[] = {0040, 0004, 0020, 0002, 0010, 0001};
    path_of(w, "ca.key", path);
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        assert_int_equal(chmod(path, 0600 | modes[i]), 0);
        assert_int_equal(authority_open(w->dir, &authority, &err), ERR_CONFIG);
        assert_non_null(strstr(err.text, "chmod 600 "));
        assert_int_equal(chmod(path, 0600), 0);
        assert_int_equal(chmod(w->dir, 0700 | modes[i]), 0);
        assert_int_equal(authority_open(w->dir, &authority, &err), ERR_CONFIG);
        assert_non_null(strstr(err.text, "chmod 700 "));
        assert_int_equal(chmod(w->dir, 0700), 0);
    }
    assert_int_equal(authority_open(w->dir, &authority, &err), 0);
    authority_close(authority);
    assert_int_equal(authority_open(path, &authority, &err), ERR_CONFIG); /* the file instead of its folder */
    assert_non_null(strstr(err.text, "starling ca init"));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0666), 0);
    assert_int_equal(authority_open(w->dir, &authority, &err), ERR_CONFIG);
    assert_null(strstr(err.text, "chmod"));
}

static int open_again(struct world *w)
{
    struct authority *authority;
    struct err err;
    int rc = authority_open(w->dir, &authority, &err);
    assert_true(rc == 0 || strstr(err.text, w->dir));
    authority_close(authority);
    return rc;
}

static void damaged_files_are_refused(void **state)
{
    struct world *w = *state;
    char path[192];
    struct trust_subject subject = world_join(w, "site-a");
    assert_int_equal(authority_revoke(w->authority, "site-b", NULL), 0);
    assert_int_equal(authority_revoke(w->authority, "site-a", NULL), 0);
    static const struct {
        const char *name;
        bool every_byte;
    } files[] = {{"ca.key", true}, {"ca.pem", true}, {"address", false}, {"generation", false}, {"revoked", false}};
    for (size_t f = 0; f < sizeof files / sizeof files[0]; f++) {
        path_of(w, files[f].name, path);
        struct file file = file_read(path);
        uint8_t *bad = mem_new(file.len + 1, 1);
        for (size_t i = 0; i < file.len; i++) {
            if (strcmp(files[f].name, "revoked") != 0 ||
                (i > 0 && file.data[i - 1] != '\n')) { /* whole lines are whole */
                file_write(path, file.data, i);
                assert_int_equal(open_again(w), ERR_DATA);
            }
            memcpy(bad, file.data, file.len);
            bad[i] ^= files[f].every_byte ? 1 : 0x80;
            file_write(path, bad, file.len);
            assert_int_equal(open_again(w), ERR_DATA);
        }
        memcpy(bad, file.data, file.len);
        bad[file.len] = '\n';
        file_write(path, bad, file.len + 1);
        assert_int_equal(open_again(w), ERR_DATA);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(open_again(w), ERR_NOTFOUND);
        file_write(path, file.data, file.len);
        assert_int_equal(open_again(w), 0);
        mem_free(bad);
        mem_free(file.data);
    }
    static const char *const lists[] = {"site-b 1\nsite-a 2\n",
                                        "site-a 1\nsite-a 2\n",
                                        "site-a 01\n",
                                        "site-a  1\n",
                                        "site-a -1\n",
                                        "site-a 1 \n",
                                        "a/b 1\n",
                                        "site-a\n",
                                        " site-a 1\n",
                                        "\n",
                                        "site-a 1\n\n",
                                        "site-a 9999999999999999999999\n"};
    path_of(w, "revoked", path);
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        file_write(path, lists[i], strlen(lists[i]));
        assert_int_equal(open_again(w), ERR_DATA);
    }
    file_write(path, "", 0);
    static const char *const numbers[] = {
        "", "\n", "1", "-1\n", "+1\n", "01\n", "1 \n", " 1\n", "1\n\n", "x\n", "1000000000000000000\n"};
    path_of(w, "generation", path);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        file_write(path, numbers[i], strlen(numbers[i]));
        assert_int_equal(open_again(w), ERR_DATA);
    }
    (void)subject;
}

/* The authority's two files, each whole, of two authorities. */
/* `names` is there to tell slips. What is wrong with it is no reason to let nobody in. */
static void no_list_of_names_stops_a_token(void **state)
{
    struct world *w = *state;
    struct authority_entry *list;
    size_t count;
    char path[192], line[16];
    struct buf full;
    path_of(w, "names", path);
    (void)world_token(w, "site-a", TRUST_TRAINER, NOW);
    assert_int_equal(authority_names(w->authority, &list, &count, NULL), 0);
    assert_int_equal(count, 1);
    assert_string_equal(list[0].name, "site-a");
    mem_free(list);
    file_write(path, "nonsense", 8);
    (void)world_token(w, "site-b", TRUST_TRAINER, NOW);
    assert_int_equal(authority_names(w->authority, &list, &count, NULL), ERR_DATA);
    buf_init(&full, 1 << 20);
    for (unsigned i = 0; i < (1 << 20) / 10; i++) {
        assert_int_equal(buf_append(&full, line, (size_t)snprintf(line, sizeof line, "n%06u 1\n", i)), 0);
    }
    file_write(path, full.data, full.len);
    buf_fini(&full);
    assert_int_equal(authority_names(w->authority, &list, &count, NULL), 0);
    mem_free(list);
    (void)world_token(w, "site-c", TRUST_TRAINER, NOW);
    assert_int_equal(authority_names(w->authority, &list, &count, NULL), ERR_NOTFOUND);
    (void)world_token(w, "site-d", TRUST_TRAINER, NOW);
    assert_int_equal(tokens_of(w, NOW), 4);
}

static void key_and_certificate_must_fit(void **state)
{
    struct world *w = *state, *other = NULL;
    char path[192], from[192];
    (void)world_setup((void **)&other);
    path_of(other, "ca.pem", from);
    path_of(w, "ca.pem", path);
    struct file file = file_read(from);
    file_write(path, file.data, file.len);
    assert_int_equal(open_again(w), ERR_DATA);
    mem_free(file.data);
    (void)world_teardown((void **)&other);
}

static void a_damaged_token_is_no_token(void **state)
{
    struct world *w = *state;
    struct trust_subject subject;
    struct authority_entry *list;
    size_t count;
    char path[192], stray[256], text[TOKEN_TEXT_MAX];
    struct err err;
    struct token token = world_token(w, "site-a", TRUST_TRAINER, NOW);
    token_path(w, path);
    struct file file = file_read(path);
    for (size_t i = 0; i < file.len; i++) {
        file_write(path, file.data, i);
        assert_int_equal(redeem(w->authority, &token, NOW, &subject), ERR_DATA);
    }
    static const char *const bad[] = {"site-a trainer 1 1800003600\n\n", "site-a trainer 1 01800003600\n",
                                      "site-a  trainer 1 1800003600\n",  "site-a root 1 1800003600\n",
                                      "a/b trainer 1 1800003600\n",      "site-a trainer -1 1800003600\n"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        file_write(path, bad[i], strlen(bad[i]));
        assert_int_equal(redeem(w->authority, &token, NOW, &subject), ERR_DATA);
        assert_int_equal(authority_tokens(w->authority, NOW, &list, &count, &err), ERR_DATA);
        assert_non_null(strstr(err.text, path)); /* which one it is */
        assert_int_equal(authority_token(w->authority, "site-b", TRUST_TRAINER, HOUR, NOW, text, NULL), ERR_DATA);
    }
    file_write(path, file.data, file.len);
    (void)snprintf(stray, sizeof stray, "%s/tokens/notes", w->dir);
    file_write(stray, "", 0);
    assert_int_equal(authority_tokens(w->authority, NOW, &list, &count, &err), ERR_DATA);
    assert_non_null(strstr(err.text, "notes"));
    assert_int_equal(unlink(stray), 0);
    (void)snprintf(stray, sizeof stray, "%s.tmp", path); /* of a save that was cut off */
    file_write(stray, "si", 2);
    assert_int_equal(tokens_of(w, NOW), 1);
    assert_int_equal(redeem(w->authority, &token, NOW, &subject), 0);
    mem_free(file.data);
}

static void numbers_never_come_twice(void **state)
{
    struct world *w = *state;
    uint64_t last = 0;
    for (int i = 0; i < 6; i++) {
        struct trust_subject subject = world_join(w, i % 2 ? "site-a" : "site-b");
        assert_true(subject.generation > last);
        last = subject.generation;
        if (i == 2) {
            assert_int_equal(authority_revoke(w->authority, "site-c", NULL), 0);
        }
        world_reopen(w);
    }
}

/* Somebody stopped while he held it: the server says so after a second, and goes on. */
static void a_lock_that_is_held_stops_nobody_for_long(void **state)
{
    struct world *w = *state;
    struct trust_subject subject;
    struct err err;
    char path[192], text[TOKEN_TEXT_MAX];
    struct token token = world_token(w, "site-a", TRUST_TRAINER, NOW);
    path_of(w, "lock", path);
    FILE *held = fopen(path, "r");
    assert_non_null(held);
    assert_int_equal(flock(fileno(held), LOCK_EX), 0);
    const uint8_t guess[32] = {1}; /* a stranger's, for which nobody waits */
    assert_int_equal(authority_redeem(w->authority, guess, NOW, &subject, &err), ERR_ACCESS);
    assert_int_equal(authority_redeem(w->authority, token.secret, NOW, &subject, &err), ERR_TEMPFAIL);
    assert_int_equal(authority_token(w->authority, "site-a", TRUST_TRAINER, HOUR, NOW, text, &err), ERR_TEMPFAIL);
    assert_string_equal(text, "");
    assert_int_equal(authority_revoke(w->authority, "site-a", &err), ERR_TEMPFAIL);
    assert_int_equal(fclose(held), 0);
    assert_int_equal(authority_redeem(w->authority, token.secret, NOW, &subject, &err), 0);
}

static int try_all(struct world *w, int what)
{
    char text[TOKEN_TEXT_MAX];
    struct authority *authority;
    struct authority_entry *list;
    struct credential *credential;
    size_t count;
    int rc = ERR_FAILED;
    switch (what) {
    case 0:
        rc = authority_open(w->dir, &authority, NULL);
        authority_close(authority);
        break;
    case 1:
        return authority_token(w->authority, "site-a", TRUST_TRAINER, HOUR, NOW, text, NULL);
    case 2:
        return authority_revoke(w->authority, "site-b", NULL);
    case 3:
        rc = authority_tokens(w->authority, NOW, &list, &count, NULL);
        mem_free(list);
        break;
    case 4:
        rc = authority_credential(w->authority, "local", TRUST_OPERATOR, DAY, NOW, &credential, NULL);
        credential_free(credential);
        break;
    default:
        break;
    }
    return rc;
}

static void memory_may_run_out(void **state)
{
    struct world *w = *state;
    (void)world_token(w, "site-c", TRUST_TRAINER, NOW);
    assert_int_equal(authority_revoke(w->authority, "site-a", NULL), 0);
    for (int what = 0; what < 5; what++) {
        int rc = ERR_NOMEM;
        for (uint64_t n = 1; rc == ERR_NOMEM && n < 100; n++) {
            mem_fail_after(n);
            rc = try_all(w, what);
            mem_fail_after(0);
        }
        assert_int_equal(rc, 0);
    }
}

/* root makes tokens for a server that runs as somebody else: it must be able to read and to spend them. */
static void root_leaves_files_to_their_owner(void **state)
{
    struct world *w = *state;
    char path[192];
    struct stat st;
    struct token token;
    struct trust_subject subject;
    static const char *const names[] = {"",        "ca.key", "ca.pem",     "address", "tokens",
                                        "revoked", "names",  "generation", "lock"};
    if (geteuid() != 0) {
        skip();
    }
    authority_close(w->authority);
    w->authority = NULL;
    assert_int_equal(chown(w->root, 12345, 12346), 0);
    (void)snprintf(w->dir, sizeof w->dir, "%s/of-another", w->root);
    assert_int_equal(authority_init(w->dir, ADDRESS, NOW, NULL), 0);
    world_reopen(w);
    (void)world_token(w, "site-a", TRUST_TRAINER, NOW);
    assert_int_equal(authority_revoke(w->authority, "site-b", NULL), 0);
    token_path(w, path);
    for (size_t i = 0; i <= sizeof names / sizeof names[0]; i++) {
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_uid, 12345);
        assert_int_equal(st.st_gid, 12346);
        path_of(w, names[i < sizeof names / sizeof names[0] ? i : 0], path);
    }
    token = world_token(w, "site-c", TRUST_TRAINER, NOW);
    pid_t server = fork();
    if (server == 0) { /* the server, as that user */
        struct authority *authority;
        bool ok = setgid(12346) == 0 && setuid(12345) == 0 && authority_open(w->dir, &authority, NULL) == 0 &&
                  authority_redeem(authority, token.secret, NOW, &subject, NULL) == 0;
        _exit(ok ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(server, &status, 0), server);
    assert_int_equal(status, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(a_new_authority),
        TEST(a_half_made_authority_is_made_again),
        TEST(an_authority_without_its_key_is_not_made_anew),
        TEST(a_folder_of_other_things_is_left_alone),
        TEST(a_token_is_good_once),
        TEST(a_token_is_good_once_among_processes),
        TEST(a_token_expires),
        TEST(a_revocation_is_for_what_was),
        TEST(a_revocation_that_was_cut_off_holds),
        TEST(reload),
        TEST(what_others_may_use_is_refused),
        TEST(damaged_files_are_refused),
        TEST(no_list_of_names_stops_a_token),
        TEST(key_and_certificate_must_fit),
        TEST(a_damaged_token_is_no_token),
        TEST(numbers_never_come_twice),
        TEST(a_lock_that_is_held_stops_nobody_for_long),
        TEST(memory_may_run_out),
        TEST(root_leaves_files_to_their_owner),
    };
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
