"""Watching without labels: a run that learns is measured and raises no alarm; one whose plan makes the representation
collapse raises it once, shows it in the status, and still knows it after kill -9."""
import sqlite3
import unittest

import harness

PLAN = {
    "min_clients": 2,
    "local_steps": 8,
    "batch": 32,
    "learning_rate": 0.02,
    "queue": 256,
    "model.width": 16,
    "model.blocks": "1,1,1",
    "model.features": 64,
}
# A gradient made faint by the temperature against weights that lose half of themselves in each step.
COLLAPSE = {"temperature": 10, "weight_decay": 1, "learning_rate": 0.5, "sgd_momentum": 0, "queue": 16}


class Watch(harness.Federation):
    def start(self, plan):
        server = self.server(plan={**PLAN, **plan})
        clients = [self.client(name, server.address, images=self.drawn(name)) for name in "ab"]
        return server, clients

    def drawn(self, name):
        """Pictures with something to learn; in noise every encoder collapses."""
        folder = self.path("drawn-" + name)
        size = ["--classes", "6", "--per-class", "20", "--size", "16"]
        done = self.run_to_end("starling", "draw-images", "--out", folder, "--seed", str(ord(name)), *size)
        self.assertEqual(done.returncode, 0, done.stderr)
        return folder

    def test_a_run_that_learns_raises_no_alarm(self):
        server, clients = self.start({"rounds": 5})
        server.wait_for("done")
        status = self.status(server)
        self.assertIsNone(status["alarm"])
        self.assertEqual(server.count("representation_collapsed"), 0)
        self.assertGreater(min(round["aggregate"]["effective_rank"] for round in status["history"]), 1.5)
        columns = "alignment, uniformity, feature_std, effective_rank"
        base = sqlite3.connect(f"file:{server.state}/history.db?mode=ro", uri=True)
        rows = base.execute(f"SELECT {columns} FROM round ORDER BY round").fetchall()
        base.close()
        self.assertEqual(len(rows), 5)
        for row, round in zip(rows, status["history"]):
            for kept, shown in zip(row, round["aggregate"].values()):
                self.assertAlmostEqual(kept, shown, places=6)
            self.assertGreater(round["own"]["feature_std"], 0.1)
        for client in status["clients"]:
            self.assertGreaterEqual(client["own"]["effective_rank"], 1)

    def test_a_collapse_is_told_once_and_outlives_the_server(self):
        server, clients = self.start({"rounds": 400, **COLLAPSE})
        at = server.wait_for("representation_collapsed")
        self.assertIn("learning_rate", server.events[at - 1]["reason"])
        server.wait_for("round_durable", after=at)
        self.assertEqual(server.count("representation_collapsed"), 1)
        server.kill9()
        again = self.server(listen=server.address, plan={**PLAN, "rounds": 400, **COLLAPSE})
        self.assertIn("collapsed", self.status(again)["alarm"])
        again.wait_for("round_durable", after=again.wait_for("round_durable"))
        self.assertEqual(again.count("representation_collapsed"), 0)
        status = self.status(again)
        self.assertIn("learning_rate", status["alarm"])
        self.assertLess(status["history"][-1]["aggregate"]["feature_std"], 0.05)
        text = self.run_to_end("starling", "status", "--server", again.address).stdout
        self.assertIn("\nalarm      the representation has collapsed", text)


if __name__ == "__main__":
    unittest.main()
