"""`starling swarm`: whole rounds of clients that train nothing against a real server, whose every model is what it must be;
and what ends a swarm. (That a wrong model does is in tests/unit/client/swarm: the server here tells no lies.)"""
import json
import os
import resource
import signal
import subprocess
import unittest

import harness


class Swarm(harness.Federation):
    def swarm(self, server, clients, *flags):
        return self.run_to_end(
            "starling", "swarm", "--server", server.address, "--clients", str(clients), "--json", *flags
        )

    def figures(self, done):
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout.splitlines()[-1])

    def test_whole_rounds(self):
        server = self.server(plan={"min_clients": 20, "round_deadline": "60s"})  # the absent are waited for a tenth of it
        got = self.figures(self.swarm(server, 20, "--rounds", "3"))
        images = sum(1 + i % 7 for i in range(20))
        self.assertEqual(self.history(server), [(round, 20, images) for round in (1, 2, 3)])
        self.assertEqual(got["models_compared"], 4)  # those of the three rounds, and what came of them
        self.assertEqual([round["round"] for round in got["rounds"]], [1, 2, 3])
        for round in got["rounds"]:
            self.assertEqual((round["accepted"], round["declined"]), (20, 0))
            self.assertEqual(round["bytes_up"], 20 * (got["model_bytes"] + 16 * 16 * 4))
            self.assertGreaterEqual(round["bytes_down"], 20 * got["model_bytes"])
            self.assertGreater(round["mb_per_second"], 0)
            self.assertIn(round["slots"], range(1, 9))  # the server's upload_slots
        self.assertEqual(got["server"]["bank_rows"], 3 * 20 * 16)
        for key in ("seconds_median", "mb_per_second_median", "welcome_seconds", "peak_rss_bytes"):
            self.assertGreater(got[key], 0, key)
        for key in ("seconds_median", "peak_rss_bytes"):
            self.assertGreater(got["server"][key], 0, key)
        self.assertNotEqual(self.model(server, 0), self.model(server, 3))
        # A run that is under way: the first model is taken as it is, the rest follows from it.
        done = self.run_to_end("starling", "swarm", "--server", server.address, "--clients", "21", "--name", "second")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("2 models were compared", done.stdout)
        server.wait_for("done")
        done = self.swarm(server, 20)
        self.assertEqual(done.returncode, 78)
        self.assertIn("0 of its 4 rounds left", done.stderr)

    def test_packed_numbers_few_slots_and_a_cap(self):
        for form in ("f16", "int8"):
            plan = {"min_clients": 9, "wire.update": form, "wire.features": form, "weight_cap": 3}
            server = self.server(state=form, plan=plan, upload_slots=1)
            got = self.figures(self.swarm(server, 9, "--features", "3"))
            self.assertEqual(got["models_compared"], 5)
            self.assertEqual(got["rounds"][0]["slots"], 1)
            self.assertEqual(self.history(server)[0], (1, 9, sum(min(3, 1 + i % 7) for i in range(9))))
            self.assertEqual(server.stop(), 0)

    def test_some_of_them_at_a_time(self):
        server = self.server(plan={"min_clients": 2, "clients_per_round": 5})
        got = self.figures(self.swarm(server, 12))
        self.assertEqual(got["models_compared"], 5)
        self.assertEqual([round["accepted"] for round in got["rounds"][1:]], [5, 5, 5])

    def test_who_else_contributes_is_noticed(self):
        # A real update is about a hundred times as long as the swarm's; declined for that, it would not be noticed here.
        server = self.server(plan={"aggregation.norm_limit": 0})
        self.client("stranger", server.address)
        server.wait_for("client_joined")
        done = self.swarm(server, 3)
        self.assertEqual(done.returncode, 1)
        self.assertIn("does somebody else contribute?", done.stderr)
        self.assertEqual(done.stdout, "")

    def test_idle(self):
        server = self.server(idle_timeout="2s")
        got = self.figures(self.swarm(server, 200, "--idle", "3"))
        self.assertEqual((got["clients"], got["rounds"], got["seconds_median"]), (200, [], None))
        self.assertGreaterEqual(got["heartbeats"], 200)
        self.assertEqual(server.count("round_opened"), 0)
        self.assertEqual(server.count("client_left"), 200)

    def limited(self, server, soft, hard):
        def limit():
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

        return subprocess.run(
            [os.path.join(harness.BIN, "starling"), "swarm", "--server", server.address, "--clients", "150"]
            + ["--idle", "1"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=limit,
            timeout=harness.WAIT_S,
        )

    def test_open_files(self):
        server = self.server()
        done = self.limited(server, 64, 300)
        self.assertEqual(done.returncode, 0, done.stderr)
        done = self.limited(server, 64, 200)
        self.assertEqual(done.returncode, 1)
        self.assertIn("150 clients need 214 open files, and this process may have 200", done.stderr)

    def test_what_ends_it(self):
        server = self.server(max_clients=10)
        done = self.swarm(server, 12, "--idle", "1")
        self.assertEqual(done.returncode, 69)
        self.assertIn("the server holds 10 connections", done.stderr)
        done = self.swarm(server, 2)
        self.assertEqual(done.returncode, 78)
        self.assertIn("min_clients", done.stderr)
        done = self.swarm(server, 3, "--features", "17")
        self.assertEqual(done.returncode, 64)
        self.assertIn("fusion.upload", done.stderr)
        self.assertEqual(self.swarm(server, 3, "--name", "a b").returncode, 64)
        self.assertEqual(self.run_to_end("starling", "swarm", "--clients", "3").returncode, 64)
        running = self.starling("swarm", "--server", server.address, "--clients", "5", "--idle", "600")
        self.wait_for_status(server, lambda status: sum(c["connected"] for c in status["clients"]) == 5)
        server.signal(signal.SIGKILL)
        self.assertEqual(running.wait(harness.WAIT_S), 69)
        self.assertIn("swarm-", running.stdout.read())
        done = self.swarm(server, 3)
        self.assertEqual(done.returncode, 69)
        self.assertEqual(done.stdout, "")


if __name__ == "__main__":
    unittest.main()
