"""A disk that has become read-only, as a file system does that has met an error: the daemons say so, keep what is durable,
and go on when it is writable again. At the start it is an error."""
import os
import subprocess
import unittest

import harness

NAMES = ["a", "b", "c"]


class DiskReadonly(harness.Federation):
    def make_readonly(self, folder):
        """A read-only view of the folder over itself; files that are open stay writable, as the daemons' locks are."""
        for words in (["--bind", folder, folder], ["-o", "remount,bind,ro", folder]):
            done = subprocess.run(["mount", *words], stderr=subprocess.PIPE, text=True, check=False)
            if done.returncode != 0:
                self.skipTest("cannot mount here: " + done.stderr.strip())
            if words[0] == "--bind":
                self.mounted.append(folder)

    def make_writable(self, folder):
        subprocess.run(["umount", "-l", folder], check=True)
        self.mounted.remove(folder)

    def setUp(self):
        super().setUp()
        self.mounted = []
        self.addCleanup(lambda: [self.make_writable(folder) for folder in list(self.mounted)])

    def start(self):
        """A server, and two of the three clients that a round needs: nothing is written until the third has come."""
        server = self.server()
        clients = [self.client(name, server.address) for name in NAMES[:2]]
        for name in NAMES[:2]:
            server.wait_for("client_joined", name=name)
        return server, clients

    def check_says_why(self, daemon, at, field):
        self.assertIn("read-only", daemon.events[at - 1][field])

    def test_the_server_waits(self):
        server, clients = self.start()
        self.make_readonly(server.state)
        clients.append(self.client("c", server.address))
        self.check_says_why(server, server.wait_for("save_failed", round=1), "waits_for")
        status = self.status(server)
        self.assertEqual((status["state"], status["round"]), ("SAVING", 0))
        self.assertIn("read-only", status["waits_for"])
        self.assertEqual(server.count("round_durable"), 0)
        self.make_writable(server.state)
        self.check_finished(server, clients, rounds=4, images=24)

    def test_the_server_is_killed_while_it_waits(self):
        server, clients = self.start()
        self.make_readonly(server.state)
        clients.append(self.client("c", server.address))
        server.wait_for("save_failed", round=1)
        server.kill9()
        again = self.start_server(listen=server.address)
        self.assertEqual(again.exit_code(), 73)
        self.assertIn("ead-only", "\n".join(again.lines))
        self.make_writable(server.state)
        server = self.server(listen=server.address)
        self.check_finished(server, clients, rounds=4, images=24)

    def test_a_client_waits(self):
        server, clients = self.start()
        self.make_readonly(self.path("client-a"))
        clients.append(self.client("c", server.address))
        self.check_says_why(clients[0], clients[0].wait_for("not_saved", round=1), "reason")
        self.assertEqual(clients[0].count("offering"), 0)
        self.make_writable(self.path("client-a"))
        self.check_finished(server, clients, rounds=4, images=24)

    def test_a_start_is_refused(self):
        for program, needs in (("starling-server", []), ("starling-client", ["--images", self.images("a"), "--name", "a"])):
            folder = self.path(program)
            os.mkdir(folder)
            self.make_readonly(folder)
            for state in (folder, os.path.join(folder, "new")):
                done = self.run_to_end(program, "--state", state, *needs)
                self.assertEqual(done.returncode, 73, done.stderr)
                self.assertIn(state, done.stderr)
                self.assertIn("ead-only", done.stderr)


if __name__ == "__main__":
    unittest.main()
