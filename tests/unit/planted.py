#!/usr/bin/env python3
"""Plants mistakes, one at a time in a copy of a source, and expects a unit test to find each: in what keeps strangers out
(common/trust, and what common/net and client/shell make of it), and in what bounds a crowd and liars (server/session, the log).

    planted.py ROOT [ROOM...]       exit 1 and one line for each mistake that nothing found

A mistake is a piece of a file, which must stand in it once, what takes its place, and the test that must fail.
"""
import concurrent.futures
import os
import pathlib
import subprocess
import sys
import tempfile

LIBRARIES = ["libcrypto", "libssl", "libxxhash", "libuv", "libprotobuf-c", "yaml-0.1", "sqlite3", "cmocka"]
FLAGS = ["-std=c11", "-O1", "-g1", "-D_GNU_SOURCE", '-DSTARLING_VERSION="0"', "-w"]

TRUST = [
    # Tokens.
    ("token.c", "store_u32(at, crc32c(0, bytes, len));", "store_u32(at, 0);",
     "token", "every_damage_is_found"),
    ("token.c", "strlen(again) == len && memcmp(again, text, len) == 0", "strlen(again) > 0",
     "token", "every_damage_is_found"),
    ("token.c", "token->role > TRUST_OPERATOR", "token->role > TRUST_SERVER",
     "token", "fields_are_checked"),
    ("token.c", "OPENSSL_cleanse(out, sizeof *out);", "",
     "token", "every_damage_is_found"),
    # Spending them.
    ("authority.c", "rc = rc ? rc : vault_token_remove(&authority->vault, token->id, err);\n    if (rc)", "if (rc)",
     "authority", "a_token_is_good_once"),
    ("authority.c", "if (token->expires < now)", "if (false)",
     "authority", "a_token_expires"),
    ("authority.c", "if (token->expires < now)", "if (token->expires <= now)",
     "authority", "a_token_expires"),
    ("authority.c", "tokens[i].expires < now || (name", "(name",
     "authority", "a_token_expires"),
    # The lock is given up between looking and removing.
    ("authority.c", "rc = rc ? rc : vault_token_remove(&authority->vault, token->id, err);\n    if (rc)",
     "vault_unlock(&authority->vault);\n    usleep(1000);\n"
     "    rc = rc ? rc : vault_token_remove(&authority->vault, token->id, err);\n    if (rc)",
     "authority", "a_token_is_good_once_among_processes"),
    # Revoking.
    ("authority.c", "subject->generation <= revoked->generation", "subject->generation < revoked->generation",
     "authority", "a_revocation_is_for_what_was"),
    ("authority.c", "return rc ? rc : sweep(authority, 0, name, err);", "return rc;",
     "authority", "a_revocation_is_for_what_was"),
    ("authority.c", "write_entry(authority, \"revoked\", name, next - 1, err)", "write_entry(authority, \"revoked\", name, next, err)",
     "authority", "a_revocation_is_for_what_was"),
    ("authority.c", "return authority_is_revoked(authority, out) ?", "return false ?",
     "authority", "a_revocation_that_was_cut_off_holds"),
    ("authority.c", "if (rc == 0 && authority_is_revoked(authority, subject)) {", "if (false) {",
     "certificate", "roles_and_generations_come_back"),
    ("vault.c", "strcmp(before->name, out->name) < 0", "true",
     "authority", "damaged_files_are_refused"),
    # A list that only helps stands in nobody's way.
    ("authority.c", "rc == ERR_DATA || rc == ERR_NOTFOUND ? 0 : rc", "rc == ERR_NOTFOUND ? 0 : rc",
     "authority", "no_list_of_names_stops_a_token"),
    ("authority.c", "if (rc == ERR_LIMIT) {", "if (false) {",
     "authority", "no_list_of_names_stops_a_token"),
    # Who may see it.
    ("authority.c", "if (has_let_in(vault)) {", "if (false) {",
     "authority", "an_authority_without_its_key_is_not_made_anew"),
    ("authority.c", "rc = rc ? rc : trust_private(path, false, err);", "",
     "authority", "what_others_may_use_is_refused"),
    ("vault.c", "int rc = trust_private(path, true, err);", "int rc = 0;",
     "authority", "what_others_may_use_is_refused"),
    ("identity.c", "rc = rc ? rc : trust_private(path, false, err);", "",
     "identity", "only_for_its_owner"),
    ("trust.c", "st.st_mode & 077)", "st.st_mode & 044)",
     "identity", "only_for_its_owner"),
    # What is signed.
    ("certificate.c", "X509_REQ_verify(request, X509_REQ_get0_pubkey(request)) != 1", "false",
     "certificate", "the_key_must_have_signed"),
    ("certificate.c", "X509_REQ_get_signature_nid(request) != NID_ecdsa_with_SHA256", "false",
     "certificate", "one_kind_of_key"),
    ("certificate.c", "bool ok = len == (int)P256_BYTES && memcmp(bytes, p256_head, sizeof p256_head) == 0;",
     "bool ok = len >= (int)P256_BYTES;", "certificate", "one_kind_of_key"),
    ("certificate.c", "if (!request || at != der + len) {", "if (!request) {",
     "certificate", "damaged_requests_are_refused"),
    ("certificate.c", "subject->role == TRUST_SERVER ? \"serverAuth\" : \"clientAuth\"", "\"clientAuth,serverAuth\"",
     "certificate", "a_certificate_says_what_was_decided"),
    ("authority.c", "(subject->role < TRUST_TRAINER || subject->role > TRUST_OPERATOR)", "false",
     "certificate", "roles_and_generations_come_back"),
    ("trust.c", "X509_NAME_entry_count(name) != 2", "false",
     "certificate", "other_subjects_are_nobody"),
    # What is loaded.
    ("certificate.c", "X509_verify(certificate, X509_get0_pubkey(ca)) != 1", "false",
     "identity", "only_what_fits_is_saved"),
    ("certificate.c", "return X509_check_private_key(certificate, key) == 1", "return true",
     "identity", "parts_must_fit"),
    ("certificate.c", "(k && halves_agree(k))", "k",
     "identity", "damage_is_found"),
    ("certificate.c", "bytes >= 0 && (size_t)bytes == len && memcmp(data, text, len) == 0", "true",
     "identity", "damage_is_found"),
    ("authority.c", "if (rc != ERR_NOTFOUND) {", "if (false) {",
     "authority", "a_new_authority"),
    ("authority.c", "    rc = rc ? rc : vault_check_new(dir, err);\n", "",
     "authority", "a_folder_of_other_things_is_left_alone"),
    ("trust.c", "if (folder ? !S_ISDIR(st.st_mode) : !S_ISREG(st.st_mode)) {", "if (false) {",
     "authority", "what_others_may_use_is_refused"),
    ("trust.c", "memcmp(got, pin, sizeof got) != 0", "false",
     "identity", "a_credential_is_one_site_s"),
    ("trust.c", "subject->role != role", "false",
     "identity", "a_credential_is_one_site_s"),
    # Whom a channel believes.
    ("channel.c", "(*out)->server = true;\n        SSL_CTX_set_verify((*out)->context, SSL_VERIFY_PEER, NULL);",
     "(*out)->server = true;", "channel", "test_with_a_certificate"),
    ("channel.c", "tls_setup_client(const struct credential *credential, struct tls_setup **out, struct err *err)\n{\n"
     "    int rc = setup_new(TLS_client_method(), credential, out, err);\n    if (rc == 0) {\n"
     "        SSL_CTX_set_verify((*out)->context, SSL_VERIFY_PEER, NULL);",
     "tls_setup_client(const struct credential *credential, struct tls_setup **out, struct err *err)\n{\n"
     "    int rc = setup_new(TLS_client_method(), credential, out, err);\n    if (rc == 0) {\n",
     "channel", "test_of_another_authority"),
    ("channel.c", "SSL_CTX_set_verify_depth(context, CHAIN_DEPTH);",
     "SSL_CTX_set_verify_depth(context, CHAIN_DEPTH); (void)SSL_CTX_set_purpose(context, X509_PURPOSE_ANY);",
     "channel", "test_purposes"),
    ("channel.c", "SSL_CTX_set_verify_depth(context, CHAIN_DEPTH);",
     "X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context), X509_V_FLAG_NO_CHECK_TIME);", "channel", "test_dates"),
    ("channel.c", "int ok = X509_verify_cert(store);", "int ok = 1;",
     "channel", "test_pins"),
    ("channel.c", "CRYPTO_memcmp(pin, channel->pin, sizeof pin) == 0", "true",
     "channel", "test_pins"),
    ("channel.c", "CRYPTO_memcmp(pin, channel->pin, sizeof pin)", "CRYPTO_memcmp(pin, channel->pin, sizeof pin - 1)",
     "channel", "test_pins"),
    ("channel.c", "channel->open = rc == 0;", "channel->open = true;",
     "channel_hostile", "test_a_certificate_that_says_nothing"),
    ("channel.c", "channel->failed = rc < 0;\n    return rc;", "channel->failed = rc < 0;\n    return 0;",
     "channel_hostile", "test_a_certificate_that_says_nothing"),
    ("channel.c", "if (channel->failed) {\n        return err_set(err, ERR_STATE", "if (false) {\n        return err_set(err, ERR_STATE",
     "channel", "test_of_another_authority"),
    # What it speaks.
    ("channel.c", "TLS1_3_VERSION", "TLS1_2_VERSION",
     "channel_hostile", "test_what_clients_must_speak"),
    ("channel.c", "TLS_CHACHA20_POLY1305_SHA256\"", "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_CCM_SHA256\"",
     "channel_hostile", "test_what_clients_must_speak"),
    ("channel.c", "\"X25519:P-256\"", "\"X25519:P-256:P-384\"",
     "channel_hostile", "test_what_clients_must_speak"),
    ("channel.c", "SSL_CTX_set_num_tickets(context, 0) == 1", "true",
     "channel", "test_open_with_the_last_byte"),
    ("channel.c", "    SSL_CTX_set_client_hello_cb(context, demand_protocols, NULL);\n", "",
     "channel_hostile", "test_what_clients_must_speak"),
    ("channel.c", ": SSL_TLSEXT_ERR_ALERT_FATAL;", ": SSL_TLSEXT_ERR_NOACK;",
     "channel_hostile", "test_what_clients_must_speak"),
    ("channel.c", "int rc = check_protocol(channel, err);", "int rc = 0;",
     "channel_hostile", "test_other_servers"),
    # Ends, and what a peer may cost.
    ("channel.c", "channel->ended = channel->open;", "channel->ended = false;",
     "channel", "test_with_a_certificate"),
    ("channel.c", "channel->failed = !channel->open;\n        return channel->open ? 0 :", "return true ? 0 :",
     "channel_hostile", "test_last_word"),
    ("channel.c", " && !(SSL_get_shutdown(channel->ssl) & SSL_SENT_SHUTDOWN)", "",
     "channel", "test_with_a_certificate"),
    ("channel.c", "!channel->open && n > HANDSHAKE_MAX - channel->shaken", "false",
     "channel_hostile", "test_floods_of_strangers"),
    ("channel.c", "if (channel->later > LATER_MAX) {\n        return 0;", "if (false) {\n        return 0;",
     "channel_hostile", "test_new_keys_again_and_again"),
    ("channel.c", "channel->starved = true;", "",
     "channel_hostile", "test_our_memory"),
]

NET = [
    ("conn_tls.c", " && (len < 2 || data[1] == RECORD_MAJOR) &&\n           (len < 3 || (data[2] >= 1 && data[2] <= 4))", "",
     "conn_tls", "test_plain_client_with_a_first_byte_of_tls"),
    ("conn_tls.c", "if (!tls->heard && !looks_like_tls(data, len)) {", "if (false) {",
     "conn_tls", "test_plain_client"),
    ("conn_tls.c", "while (tls->first && tls->flying < FLIGHT_MAX) {", "while (tls->first) {",
     "conn_tls", "test_a_peer_that_does_not_read"),
    ("conn_tls.c", "tls->flying < FLIGHT_MAX) {", "tls->flying < 16 * FLIGHT_MAX) {",
     "conn_tls", "test_a_peer_that_does_not_read"),
    ("conn_tls.c", "    (void)launch(conn, 0);\n    drop_queue(conn->tls);", "    drop_queue(conn->tls);\n    conn_finish(conn);\n    return;",
     "conn_tls", "test_certificates_of_others"),
    ("conn_tls.c", "channel_end(tls->channel);\n        (void)launch(conn, 0);", "",
     "conn_end", "test_linger_delivers_everything over TLS"),
    ("conn_tls.c", "return conn->tls && conn->tls->channel ? channel_peer(conn->tls->channel) : NULL;", "return NULL;",
     "conn_tls", "test_subjects"),
    ("conn.c", "} else if (conn->tls && !conn_tls_has_ended(conn)) {", "} else if (false) {",
     "conn_tls", "test_end_without_the_last_word"),
    ("conn.c", "conn->state == CONN_SHAKING) {\n        conn_fail(conn, ERR_TEMPFAIL", "false) {\n        conn_fail(conn, ERR_TEMPFAIL",
     "conn_tls", "test_half_a_handshake"),
    ("conn_close.c", "conn_tls_farewell(conn);", ";",
     "conn_end", "test_idle_later over TLS"),
    ("conn.c", "(void)uv_read_stop(stream);\n        conn->options.knock", "conn->options.knock",
     "conn_tls", "test_knock"),
    ("conn.c", "if (waits_to_shake(handle->data)) {", "if (false) {",
     "conn_tls", "test_knock"),
    ("conn_tls.c", "tls->waits = tls->server && conn->options.knock;", "",
     "conn_tls", "test_knock"),
    ("listener.c", "++listener->taken < LISTENER_TURN", "true",
     "address", "test_a_turn_takes_few"),
    ("listener.c", "        (void)uv_timer_start(later, take, AGAIN_MS, 0);\n", "",
     "address", "test_no_memory_for_a_connection"),
    ("listener.c", "        (void)uv_timer_start(&listener->later, take, 0, 0);\n", "",
     "address", "test_one_after_the_other"),
    ("conn_open.c", "start_timeout(conn); /* of TLS", "/* of TLS",
     "conn_tls", "test_handshake_time_out"),
]

SHELL = [
    # What a renewal may not bring.
    ("passport.c", "    rc = credential_check(made, pin, name, role, err);", "    rc = 0;",
     "renewal", "what_was_not_asked_for_does_not"),
    ("passport.c", "rc == 0 && credential_subject(made)->not_after <= now_s()", "false",
     "renewal", "what_was_not_asked_for_does_not"),
    # Who is there, and what a signal ends.
    ("exchange.c", "ERR_TEMPFAIL, \"%s: no answer", "ERR_UNAVAILABLE, \"%s: no answer",
     "exchange", "who_is_silent_is_there"),
    ("exchange.c", "if (!uv_is_closing((uv_handle_t *)&talk->timer)) {", "if (true) {",
     "exchange", "a_signal_ends_it"),
    ("exchange.c", "        _exit(1);", "        return;",
     "exchange", "a_second_signal_waits_for_nothing"),
]

SESSION = [
    # Who may be in a handshake.
    ("handshakes.c", "if (s->shaking_count < c->options.handshakes_max) {", "if (s->shaking_count < HANDSHAKES_MOST) {",
     "strangers", "few_shake_hands_at_a_time"),
    ("handshakes.c", "c->now_ms - out->shaking_ms < grace_ms(c)", "true",
     "strangers", "half_a_handshake_makes_way"),
    ("handshakes.c", "wanted > HANDSHAKE_LEAST_MS ? wanted : HANDSHAKE_LEAST_MS", "wanted",
     "strangers", "half_a_handshake_makes_way"),
    ("handshakes.c", "bool fairer = most > places_of(s, peer->group) + 1;", "bool fairer = false;",
     "strangers", "a_crowd_keeps_nobody_from_shaking_hands"),
    ("handshakes.c", "first = count > *most ? s->shaking[i] : first;", "first = first ? first : s->shaking[i];",
     "strangers", "a_crowd_keeps_nobody_from_shaking_hands"),
    ("peers.c", "    handshake_end(c, peer);\n    peer->proven", "    peer->proven",
     "strangers", "few_shake_hands_at_a_time"),
    ("strangers.c", "    handshake_end(c, peer);\n", "",
     "strangers", "half_a_handshake_makes_way"),
    ("send.c", "log_limit_take_of(&c->peers_log, event, address, address_group(address), c->now_ms)",
     "log_limit_take(&c->peers_log, event, address, c->now_ms)",
     "strangers", "a_crowd_fills_no_log"),
    # What is too long beside those who learned nothing.
    ("lengths.c", " || usual == 0) {", ") {",
     "liars", "where_nothing_is_learned_nobody_is_too_long"),
    ("absorb.c", "if (length->most > 0 && norm > length->most) {", "if (norm > length->most) {",
     "liars", "where_nothing_is_learned_nobody_is_too_long"),
    # What becomes of features that are others'.
    ("absorb.c", "    if (absorb->copied) {\n        return true;", "    if (false) {\n        return true;",
     "rounds", "copied_features_are_dropped"),
    ("absorb.c", "        return true; /* Nothing goes into the intake", "        return false; /* Nothing goes into the intake",
     "rounds", "copied_features_are_dropped"),
    ("absorb.c", "        return true; /* Nothing goes into the intake",
     "        return !bank_intake_add(absorb->intake, absorb->owner, absorb->round, features, 0); /* Nothing",
     "rounds", "copied_features_are_dropped"),
]

BASE = [
    # How much of a log a crowd may fill, and whose lines that costs.
    ("log.c", "(!kind || rate_has(kind, &limit_each, now_ms)) &&", "",
     "log", "test_limit_of_a_crowd"),
    ("log.c", "    if (rate_has(each, &limit_each, now_ms) && (!kind", "    (void)rate_take(each, &limit_each, 1, now_ms);\n    if (rate_has(each, &limit_each, now_ms) && (!kind",
     "log", "test_limit_of_a_crowd"),
    ("log.c", "return &limit->kinds[i].rate;", "return &limit->kinds[0].rate;",
     "log", "test_limit_of_a_crowd"),
    ("log.c", "rate_of_kind(limit, event)", "&limit->kinds[key_of(event) % LOG_LIMIT_KINDS].rate",
     "log", "test_events_share_no_rate"),
]

# Room: its mistakes, and all sources that its tests are linked with.
PLANTED = {
    "common/base": (BASE, ["common/base/*.c"]),
    "common/trust": (TRUST, ["common/trust/*.c", "common/base/*.c"]),
    "common/net": (NET, ["common/net/*.c", "common/base/*.c", "common/wire/*.c", "common/trust/*.c"]),
    "server/session": (SESSION, [
        "server/session/*.c", "common/base/*.c", "common/vec/*.c", "common/config/*.c", "common/wire/*.c", "server/round/*.c",
        "server/agg/*.c", "server/bank/*.c", "server/store/*.c", "tests/support/simdisk.c"]),
    "client/shell": (SHELL, [
        "client/shell/passport.c", "client/shell/exchange.c", "common/base/*.c", "common/wire/*.c", "common/trust/*.c",
        "common/net/*.c"]),
}


def flags_of(what):
    return subprocess.run(["pkg-config", what, *LIBRARIES], check=True, capture_output=True, text=True).stdout.split()


class Yard:
    """Objects of everything as it is; a mistake costs one compilation and a link."""

    def __init__(self, root, folder, room):
        self.root, self.folder = root, pathlib.Path(folder)
        self.compile_flags, self.link_flags = flags_of("--cflags"), flags_of("--libs")
        mistakes, parts = PLANTED[room]
        self.tests = sorted({test for *_, test, _ in mistakes})
        subprocess.run(["protoc-c", f"--proto_path={root}", f"--c_out={folder}", "proto/starling.proto"], check=True)
        sources = [self.folder / "proto/starling.pb-c.c"] if "common/wire/*.c" in parts else []
        sources += [source for part in parts for source in sorted(root.glob(part))]
        sources += [root / f"tests/unit/{room}/test_{test}.c" for test in self.tests]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(lambda source: self.compile(source, self.name_of(source, room)), sources))
        # No mistake here is one of durability, and a slow disk would make minutes of it.
        quick = self.folder / "quick.c"
        quick.write_text("int fsync(int file); int fsync(int file) { (void)file; return 0; }\n")
        objects.append(self.compile(quick, "quick"))
        self.objects = [o for o in objects if not o.stem.startswith("test_")]

    def name_of(self, source, room):
        """The room's own files, and its tests, go by their names; there may be others of that name elsewhere."""
        other = self.root in source.parents and source.parent != self.root / room and "tests" not in source.parts
        return "-".join(source.relative_to(self.root).with_suffix("").parts) if other else source.stem

    def compile(self, source, name):
        to = self.folder / f"{name}.o"
        command = [os.environ.get("CC", "cc"), *FLAGS, *self.compile_flags, "-I", self.root, "-I", self.folder, "-c", source, "-o", to]
        subprocess.run(command, check=True)
        return to

    def fails(self, test, only=None, instead=None, by=None):
        """Whether test_TEST (its test `only`) fails when the object `by` stands in for the room's file `instead`."""
        objects = [by if instead and o.stem == instead else o for o in self.objects]
        program = self.folder / f"{by.stem if by else 'whole'}-{test}"
        link = [os.environ.get("CC", "cc"), "-o", program, self.folder / f"test_{test}.o", *objects, *self.link_flags, "-lm"]
        subprocess.run(link, check=True)
        run = [program, *([only] if only else [])]
        done = subprocess.run(run, capture_output=True, text=True, errors="replace", timeout=300, check=False)
        program.unlink()
        return done.returncode != 0


def plant(root, room):
    """Yields what was not found."""
    with tempfile.TemporaryDirectory() as folder:
        yard = Yard(root, folder, room)
        for test in yard.tests:
            if yard.fails(test):
                sys.exit(f"test_{test} fails with nothing planted")
        for number, (name, old, new, test, expected) in enumerate(PLANTED[room][0]):
            text = (root / room / name).read_text()
            if text.count(old) != 1:
                yield f"{name}: {old!r} stands there {text.count(old)} times"
                continue
            copy = yard.folder / f"planted{number}.c"
            copy.write_text(text.replace(old, new))
            mistake = f"{name}: {new or 'nothing'!r} instead of {old!r}"
            found = yard.fails(test, expected, pathlib.Path(name).stem, yard.compile(copy, copy.stem))
            print(f"{mistake}: {'found' if found else 'NOT FOUND'} by {test}, {expected}", flush=True)
            if not found:
                yield f"{mistake}: not found by {test}, {expected}"


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    missed = [line for room in sys.argv[2:] or PLANTED for line in plant(root, room)]
    for line in missed:
        print(line)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
