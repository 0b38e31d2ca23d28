"""TLS from a bare start: CA, tokens, joining, renewal, revocation; who is refused, and how it is told."""
import fcntl
import os
import signal
import socket
import time
import unittest

import harness

DENIED = 77
CLOCK = os.environ.get("STARLING_CLOCK_LIB", os.path.abspath(os.path.join(harness.BIN, "..", "tests", "libclock.so")))


class Trust(harness.Federation):
    def setUp(self):
        super().setUp()
        self.ca = self.path("trust")
        self.starling_ca("init", self.ca, "--address", "127.0.0.1:7640")

    def starling_ca(self, *args):
        done = self.run_to_end("starling", "ca", *args)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.strip()

    def token(self, name, *flags):
        return self.starling_ca("token", "--trust", self.ca, "--name", name, *flags)

    def server(self, **how):
        return super().server(trust=self.ca, **how)

    def joining(self, name, server, **how):
        """By itself it is in the token's name; the flag is the harness's."""
        return self.client(name, server.address, flags=["--join", self.token(name)], **how)

    def status(self, server):
        done = self.run_to_end("starling", "status", "--server", server.address, "--trust", self.ca, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return harness.json.loads(done.stdout.splitlines()[-1])

    def test_two_sites_join_and_learn(self):
        server = self.server(plan={"min_clients": 2})
        clients = [self.joining(name, server) for name in ("a", "b")]
        for client in clients:
            client.wait_for("joined")
        self.check_finished(server, clients, rounds=4, images=24)
        self.assertEqual(server.count("certificate_issued"), 2)
        identity = os.path.join(self.path("client-a"), "identity", "identity.pem")
        self.assertEqual(os.stat(identity).st_mode & 0o777, 0o600)

    def test_started_again_with_the_same_command(self):
        """The token is spent; the identity does."""
        server = self.server(plan={"min_clients": 2})
        token = self.token("a")
        client = self.client("a", server.address, flags=["--join", token])
        client.wait_for("welcomed")
        client.kill9()
        client = self.client("a", server.address, flags=["--join", token])
        client.wait_for("joined_before")
        client.wait_for("welcomed")
        self.assertEqual(server.count("certificate_issued"), 1)
        self.assertEqual(server.count("access_refused"), 0)  # nobody is warned of what is no attack
        client.kill9()
        os.remove(os.path.join(self.path("client-a"), "identity", "token.sha256"))  # as an earlier build left it
        client = self.client("a", server.address, flags=["--join", token])
        client.wait_for("joined_before")
        client.wait_for("welcomed")
        self.assertEqual(server.count("access_refused"), 1)
        client.kill9()
        client = self.client("a", server.address, flags=["--join", self.token("a")])  # another token is redeemed
        client.wait_for("joined")
        client.wait_for("welcomed")
        self.assertEqual(server.count("certificate_issued"), 2)

    def test_no_place_to_join(self):
        """A server that hangs up before TLS's handshake, since its places are taken, is not called unreachable."""
        server = self.server(plan={"min_clients": 2}, strangers_per_address=1, idle_timeout="600s")
        before = self.client("b", server.address, flags=["--join", self.token("b")])
        before.wait_for("welcomed")
        before.stop()
        with harness.connect(server.address):
            joins = self.joining("a", server)
            again = self.client("b", server.address)
            for client in (joins, again):
                at = client.wait_for("turned_away")
                self.assertIn("connection_refused", client.events[at - 1]["check"])
                self.assertEqual(client.count("server_unreachable"), 0)
        for client in (joins, again):
            client.wait_for("welcomed")

    def test_asked_to_stop_while_it_joins(self):
        """In an attempt, which is not answered, and between two: at once, with success, and nothing is left."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            for address in ("127.0.0.1:%d" % silent.getsockname()[1], "127.0.0.1:1"):
                client = self.client("a", address, flags=["--join", self.token("a")])
                if address == "127.0.0.1:1":
                    client.wait_for("join_waits", retry_ms=4000)
                else:
                    there, _ = silent.accept()
                    self.addCleanup(there.close)
                start = time.monotonic()
                client.signal(signal.SIGINT if address == "127.0.0.1:1" else signal.SIGTERM)
                self.assertEqual(client.exit_code(), 0, client.lines)
                self.assertLess(time.monotonic() - start, 3)
                self.assertEqual(client.count("done"), 1)
                self.assertFalse(os.path.exists(self.path("client-a")))

    def test_renewal_during_a_round(self):
        server = self.server(plan={"min_clients": 2}, certificate_valid="3s")
        clients = [self.joining("a", server)]  # alone: the round stays ahead while it renews
        clients[0].wait_for("welcomed")
        at = 0
        for _ in range(2):
            at = clients[0].wait_for("certificate_renewed", at)
        clients.append(self.joining("b", server))
        self.check_finished(server, clients, rounds=4, images=24)
        self.assertGreaterEqual(server.count("certificate_renewed"), 2)
        self.assertEqual(clients[0].count("connection_lost"), 0)

    def test_revocation_ends_a_live_connection(self):
        server = self.server(plan={"min_clients": 2})
        bad = self.joining("bad", server)
        server.wait_for("client_joined", name="bad")
        self.starling_ca("revoke", "bad", "--trust", self.ca)
        server.wait_for("access_refused", name="bad")
        self.assertEqual(bad.exit_code(), DENIED)
        again = self.client("bad", server.address)
        self.assertEqual(again.exit_code(), DENIED)
        clients = [self.joining("bad", server), self.joining("a", server)]  # a new token makes it welcome
        self.check_finished(server, clients, rounds=4, images=24)

    def test_no_round_waits_for_who_was_revoked(self):
        """Who is only away is waited for: for three minutes here."""
        server = self.server(plan={"min_clients": 1, "rounds": 1000000, "round_deadline": "30m"})
        clients = [self.joining("bad", server), self.joining("a", server)]
        server.wait_for("round_closed", of=2)
        clients[0].signal(signal.SIGSTOP)  # so the open round, or the next, is waiting for it
        self.starling_ca("revoke", "bad", "--trust", self.ca)
        server.wait_for("round_closed", server.wait_for("client_left", name="bad"), of=1)
        clients[0].signal(signal.SIGCONT)
        self.assertEqual(clients[0].exit_code(), DENIED)

    def test_who_is_refused(self):
        server = self.server(plan={"min_clients": 2})
        token = self.token("a")
        first = self.client("a", server.address, flags=["--join", token])
        first.wait_for("welcomed")
        spent = self.client("a", server.address, state="other", flags=["--join", token])
        self.assertEqual(spent.exit_code(), DENIED)
        at = server.wait_for("access_refused")
        self.assertNotIn("name", server.events[at - 1])
        self.starling_ca("init", self.path("another"), "--address", server.address)
        done = self.run_to_end("starling", "ca", "token", "--trust", self.path("another"), "--name", "a")
        stranger = self.client("a", server.address, state="stranger", flags=["--join", done.stdout.strip()])
        self.assertEqual(stranger.exit_code(), DENIED)
        plain = self.client("c", server.address)
        self.assertEqual(plain.exit_code(), 76)
        self.assertTrue(any("token" in line for line in plain.lines))
        other_name = self.client("b", server.address, state="client-a2", flags=["--join", self.token("d")])
        self.assertEqual(other_name.exit_code(), 78)
        done = self.run_to_end("starling", "status", "--server", server.address)
        self.assertEqual(done.returncode, 76, done.stderr)
        for hint in ("speaks TLS", "--trust DIR", "--identity DIR", "starling join TOKEN --out DIR"):
            self.assertIn(hint, done.stderr)
        self.assertEqual(self.status(server)["round"], 0)

    def test_roles(self):
        """A certificate is for one role: what another may say is refused."""
        server = self.server(plan={"min_clients": 2})
        folder = self.path("ops")
        done = self.run_to_end("starling", "join", self.token("ops", "--role", "operator"), "--out", folder)
        self.assertEqual(done.returncode, 69, done.stderr)  # at the CA's address nobody listens; the token is unspent
        token = self.token("ops", "--role", "operator")
        operator = self.client("ops", server.address, flags=["--join", token])
        self.assertEqual(operator.exit_code(), 78)  # and the token is unspent
        done = self.run_to_end("starling", "join", token, "--out", folder, "--server", server.address)
        self.assertEqual(done.returncode, 0, done.stderr)
        identity = folder
        done = self.run_to_end("starling", "status", "--server", server.address, "--identity", identity, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        trainer = self.joining("a", server)
        trainer.wait_for("welcomed")
        trainer.kill9()
        identity = os.path.join(self.path("client-a"), "identity")
        done = self.run_to_end("starling", "status", "--server", server.address, "--identity", identity)
        self.assertEqual(done.returncode, DENIED, done.stderr)
        for hint in (identity, "for the trainer a", "--role operator", "starling join TOKEN"):
            self.assertIn(hint, done.stderr)
        done = self.run_to_end("starling", "status", "--identity", self.path("nowhere"))
        self.assertEqual(done.returncode, 65, done.stderr)
        self.assertIn(f"starling join TOKEN --out {self.path('nowhere')}", done.stderr)

    def test_a_failed_join_forgets_nothing(self):
        """--new-run is for who is let in: with a token that is spent, or for another role, the old state stays as it was."""
        server = self.server(plan={"min_clients": 1, "rounds": 2})
        client = self.joining("a", server)
        self.check_finished(server, [client], rounds=2, images=24)
        spent = self.token("a")
        done = self.run_to_end("starling", "join", spent, "--out", self.path("spent"), "--server", server.address)
        self.assertEqual(done.returncode, 0, done.stderr)
        state = self.path("client-a")
        os.rename(os.path.join(state, "identity"), self.path("identity"))
        names = ("state", "instance", "secret")

        def read(name):
            with open(os.path.join(state, name), "rb") as file:
                return file.read()

        before = [read(name) for name in names]
        for code, token in ((77, spent), (78, self.token("ops", "--role", "operator"))):
            client = self.client("a", server.address, flags=["--join", token, "--new-run"])
            self.assertEqual(client.exit_code(), code)
            self.assertEqual([read(name) for name in names], before)

    def test_a_failed_join_leaves_nothing(self):
        """Neither a spent token nor a wrong role nor a broken token: the next try begins where this one did."""
        server = self.server(plan={"min_clients": 2})
        spent = self.token("a")
        first = self.client("a", server.address, flags=["--join", spent])
        first.wait_for("welcomed")
        first.kill9()
        before = sorted(os.listdir(self.folder))
        os.makedirs(self.path("was", "there"))
        wrong = {77: spent, 78: self.token("ops", "--role", "operator"), 65: spent[1:]}
        for state in ("b", "was/there", "was/deep/er"):
            for code, token in wrong.items():
                client = self.client("a", server.address, state=state, flags=["--join", token])
                self.assertEqual(client.exit_code(), code)
                self.assertFalse(any(token[40:70] in line for line in client.lines), client.lines)
        for out in (self.path("ops"), self.path("was", "there"), self.path("was", "deep", "er")):
            done = self.run_to_end("starling", "join", spent, "--out", out, "--server", server.address)
            self.assertEqual(done.returncode, DENIED, done.stderr)
        self.assertEqual(os.listdir(self.path("was")), ["there"])
        self.assertEqual(os.listdir(self.path("was", "there")), [])
        os.removedirs(self.path("was", "there"))
        self.assertEqual(sorted(os.listdir(self.folder)), before)
        self.joining("b", server, state="b").wait_for("welcomed")

    def test_a_command_that_is_frozen_with_the_lock(self):
        """It is waited for once, not again for each who brings a token."""
        server = self.server(plan={"min_clients": 2}, idle_timeout="12s")  # no token for 2 s; a client tries after 0.5
        clients = [self.joining("a", server)]
        clients[0].wait_for("welcomed")
        with open(os.path.join(self.ca, "lock")) as lock:
            token = self.token("b")
            fcntl.flock(lock, fcntl.LOCK_EX)
            clients.append(self.client("b", server.address, flags=["--join", token]))
            at = server.wait_for("trust_unreadable")
            self.assertIn("has held its lock", server.events[at - 1]["reason"])
            server.wait_for("trust_unreadable", at, reason="the folder's lock was held just now")
        self.check_finished(server, clients, rounds=4, images=24)

    def test_a_folder_that_cannot_be_read(self):
        """It is looked into each second, and what is wrong is said once."""
        server = self.server(plan={"min_clients": 2})
        revoked = os.path.join(self.ca, "revoked")
        os.rename(revoked, revoked + ".away")
        at = server.wait_for("trust_unreadable")
        with open(revoked, "w") as file:
            file.write("nonsense")
        at = server.wait_for("trust_unreadable", at)
        self.assertIn("damaged", server.events[at - 1]["reason"])
        time.sleep(3)  # for some more looks
        os.rename(revoked + ".away", revoked)
        server.wait_for("trust_readable", at)
        self.assertEqual(server.count("trust_unreadable"), 2)
        self.joining("a", server).wait_for("welcomed")

    def set_clock(self, seconds):
        """Of what runs `under` the answer: the wall clock is so far ahead."""
        with open(self.path("clock.new"), "w") as file:
            file.write(str(seconds))
        os.rename(self.path("clock.new"), self.path("clock"))
        sanitizer = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
        return ["env", "LD_PRELOAD=" + CLOCK, "ASAN_OPTIONS=" + sanitizer, "STARLING_CLOCK=" + self.path("clock")]

    def test_a_clock_that_was_ahead(self):
        """When it is set right, the server's certificate is of the future, and is made anew."""
        under = self.set_clock(86400)
        server = self.server(plan={"min_clients": 2}, under=under)
        self.assertNotEqual(self.run_to_end("starling", "status", "--server", server.address, "--trust", self.ca).returncode, 0)
        self.set_clock(0)
        deadline = time.monotonic() + harness.WAIT_S
        while self.run_to_end("starling", "status", "--server", server.address, "--trust", self.ca).returncode:
            self.assertLess(time.monotonic(), deadline, "nobody gets in")
        clients = [self.joining(name, server) for name in ("a", "b")]
        self.check_finished(server, clients, rounds=4, images=24)

    def test_a_clock_that_is_set_back(self):
        """Who has renewed by it may renew again."""
        under = self.set_clock(0)
        server = self.server(plan={"min_clients": 2}, certificate_valid="3s", under=under)
        clients = [self.joining("a", server)]
        server.wait_for("certificate_renewed")
        self.set_clock(-60)
        at = len(server.events)
        for _ in range(2):
            at = server.wait_for("certificate_renewed", at)
        self.assertEqual(server.count("access_refused"), 0)
        self.assertIsNone(clients[0].process.poll())

    def test_plain_beyond_loopback_needs_a_word(self):
        done = self.run_to_end("starling-server", "--listen", "0.0.0.0:0", "--state", self.path("s"))
        self.assertEqual(done.returncode, 78)
        self.assertIn("starling ca init", done.stderr)
        server = super().server(listen="0.0.0.0:0", plain_beyond_loopback="true")
        server.wait_for("plain_listening")
        checks = ["starling-server", "--trust", self.ca, "--check-config"]
        self.assertEqual(self.run_to_end(*checks).returncode, 0)
        os.chmod(os.path.join(self.ca, "ca.key"), 0o644)
        for args in (checks, ["starling-server", "--trust", self.ca, "--listen", "127.0.0.1:0", "--state", self.path("t")]):
            done = self.run_to_end(*args)
            self.assertEqual(done.returncode, 78, done.stderr)
            self.assertIn("chmod", done.stderr)


if __name__ == "__main__":
    unittest.main()
