/* starling join: a token becomes an identity, for who has something to ask with it (an operator's status). Clients join
 * by themselves. */
#include "client/shell/passport.h"
#include "client/tool/cli.h"
#include "client/tool/verbs.h"

#include <stdio.h>

int verb_join(int argc, char **argv)
{
    static const struct cli_verb verb = {
        .usage = "starling join TOKEN|FILE --out DIR [--server HOST:PORT]",
        .about =
            "Gets the certificate that a token of `starling ca token` stands for, and keeps it in a folder with its "
            "key, which is made here. A token is good once. A client needs none of this: starling-client --join "
            "does it by itself. Exit 77 when the server does not take the token.",
        .examples = "  starling join \"$TOKEN\" --out ops && starling status --identity ops\n",
    };
    const char *out = NULL, *given = NULL, *server = NULL;
    const struct flag flags[] = {
        {"out", FLAG_TEXT, &out, "DIR", "folder of the key and the certificate", 0, 0, true},
        {"server", FLAG_TEXT, &server, "HOST:PORT", "where the server is reached from here; default: as the token says",
         0, 0, false},
    };
    int exit_code;
    if (!cli_flags_word(&verb, flags, sizeof flags / sizeof flags[0], argc, argv, "TOKEN|FILE", &given, &exit_code)) {
        return exit_code;
    }
    struct token token;
    struct err err;
    if (identity_exists(out)) {
        (void)err_set(&err, ERR_CANTCREATE,
                      "%s: there is an identity in it already; name another folder, or remove this one to join anew",
                      out);
        return cli_fail(&err);
    }
    int rc = passport_read_token(given, &token, &err);
    if (rc == 0 && server) {
        (void)snprintf(token.address, sizeof token.address, "%s", server);
    }
    rc = rc ? rc : passport_join(&token, out, NULL, NULL, &err);
    if (rc) {
        return cli_fail(&err);
    }
    (void)printf("%s: the %s %s of %s\n", out, role_name(token.role), token.name, token.address);
    return 0;
}
