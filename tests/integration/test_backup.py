"""deploy/backup.sh copies the server's state in the midst of rounds; a server that is given the copy goes on from there,
with clients that are ahead of it. What lies in the state folders is what deploy/OPERATING.md tells of."""
import os
import re
import subprocess
import unittest

import harness

DEPLOY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "deploy")
BACKUP = os.path.join(DEPLOY, "backup.sh")
PLAN = {"rounds": 100000}


class Backup(harness.Federation):
    def backup(self, state, new):
        return subprocess.run([BACKUP, state, new], capture_output=True, text=True, timeout=harness.WAIT_S)

    def test_while_rounds_go_on(self):
        server = self.server(plan=PLAN)
        address = server.address
        clients = [self.client(name, address) for name in ("a", "b", "c")]
        at = server.wait_for("round_durable", round=2)
        # Several, so that some fall into a save.
        for i in range(8):
            done = self.backup(server.state, self.path(f"backup-{i}"))
            self.assertEqual(done.returncode, 0, done.stderr)
            at = server.wait_for("round_durable", after=at)
        self.assertFalse([name for name in os.listdir(server.state) if name.startswith("backup")])
        server.kill9()
        self.check_names(server.state, self.path("client-a"))
        for i in (0, 3, 7):
            server = self.server(listen=address, state=f"backup-{i}", plan=PLAN)
            self.assertEqual(server.count("checkpoint_skipped"), 0)
            round = int(server.events[server.wait_for("run_resumed") - 1]["round"])
            self.assertGreaterEqual(round, 2)
            if i == 0:
                server.wait_for("client_ahead")
            server.wait_for("round_durable", round=round + 1)
            server.kill9()
        for client in clients:
            self.assertIsNone(client.process.poll())

    def test_the_authority_is_left_out(self):
        server = self.server(plan=PLAN)
        os.mkdir(os.path.join(server.state, "trust"))
        done = self.backup(server.state, self.path("copy"))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("not trust/", done.stdout)
        self.assertNotIn("trust", os.listdir(self.path("copy")))

    def check_names(self, *states):
        with open(os.path.join(DEPLOY, "OPERATING.md"), encoding="utf-8") as file:
            tables = re.findall(r"^\| (`.*?) \|", file.read().split("## Files")[1].split("\n## ")[0], re.M)
        told = set(re.findall(r"`([^`]+)`", " ".join(tables)))
        self.assertIn("pending", told)
        for state in states:
            for name in os.listdir(state):
                name = re.sub(r"\d{6}", "000012", name).removesuffix(".tmp")
                name = {"models": "models/round-000012.starling", "cache": "cache/"}.get(name, name)
                self.assertIn(re.sub("^history.db-", "-", name), told)

    def test_no_copy_of_what_is_not_whole(self):
        server = self.server(plan=PLAN)
        server.kill9()
        os.remove(os.path.join(server.state, "models", "round-000000.starling"))  # planted: a checkpoint without its model
        done = self.backup(server.state, self.path("copy"))
        self.assertEqual((done.returncode, os.path.exists(self.path("copy"))), (65, False), done.stderr)
        self.assertEqual(self.backup(self.path("nowhere"), self.path("copy")).returncode, 65)
        os.mkdir(self.path("copy"))
        self.assertEqual(self.backup(server.state, self.path("copy")).returncode, 73)
        self.assertEqual(self.backup(server.state, "").returncode, 64)


if __name__ == "__main__":
    unittest.main()
