"""A full disk: the daemons say so, keep what is durable, and go on when there is room again."""
import os
import resource
import subprocess
import unittest

import harness

NAMES = ["a", "b", "c"]


def file_size_limit(daemon, limit):
    """No file of the process may grow beyond `limit` bytes: a full disk that needs no privileges."""
    _, hard = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (hard if limit is None else limit, hard))


class DiskFull(harness.Federation):
    def check_save_fails(self, server, round):
        """The server says that it cannot save, is alive, announces nothing, and keeps the state before."""
        server.wait_for("save_failed", round=round)
        status = self.status(server)
        self.assertEqual((status["state"], status["round"]), ("SAVING", round - 1))
        self.assertIn("disk", status["waits_for"])
        self.assertEqual(server.count("round_durable", round=round), 0)
        self.assertTrue(os.path.exists(os.path.join(server.state, f"checkpoint-{round - 1:06}")))
        self.assertFalse(os.path.exists(os.path.join(server.state, f"checkpoint-{round:06}")))

    def test_the_server_waits_for_room(self):
        server = self.server()
        clients = [self.client(name, server.address) for name in NAMES]
        server.wait_for("round_opened", round=2)
        file_size_limit(server, 4096)
        self.check_save_fails(server, 2)
        file_size_limit(server, None)
        self.check_finished(server, clients, rounds=4, images=24)

    def test_the_server_is_killed_while_it_waits(self):
        server = self.server()
        clients = [self.client(name, server.address) for name in NAMES]
        server.wait_for("round_opened", round=2)
        file_size_limit(server, 4096)
        self.check_save_fails(server, 2)
        server.kill9()
        server = self.server(listen=server.address)
        server.wait_for("run_resumed", round=1)
        self.check_finished(server, clients, rounds=4, images=24)

    def test_a_file_system_without_space(self):
        mounted = self.path("small")
        os.mkdir(mounted)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", mounted], stderr=subprocess.PIPE, text=True, check=False
        )
        if done.returncode != 0:
            self.skipTest("cannot mount a small file system here: " + done.stderr.strip())
        self.addCleanup(subprocess.run, ["umount", mounted], check=True)
        server = self.server(state="small/server")
        clients = [self.client(name, server.address) for name in NAMES]
        server.wait_for("round_opened", round=2)
        with open(os.path.join(mounted, "filler"), "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(b"\0" * 4096)
            except OSError:
                pass
        self.check_save_fails(server, 2)
        os.remove(os.path.join(mounted, "filler"))
        self.check_finished(server, clients, rounds=4, images=24)

    def test_a_client_waits_for_room(self):
        server = self.server()
        clients = [self.client(name, server.address) for name in NAMES]
        clients[0].wait_for("round_received", round=2)
        file_size_limit(clients[0], 4096)
        clients[0].wait_for("not_saved", round=2)
        self.assertEqual(clients[0].count("offering", round=2), 0)
        file_size_limit(clients[0], None)
        self.check_finished(server, clients, rounds=4, images=24)


if __name__ == "__main__":
    unittest.main()
