"""An observer beside a real federation: what the server shows is what `starling eval` says of the same model file; it
holds nothing up, outlives the server, and refuses folders that it cannot use."""
import json
import os
import sqlite3
import unittest

import harness


class Observer(harness.Federation):
    def labelled(self, name, count, classes=3):
        """Classes that differ in brightness, so that something can be found."""
        folder = self.path(name)
        for k in range(classes):
            os.makedirs(os.path.join(folder, f"class{k}"))
            for i in range(count):
                noise = os.urandom(16 * 16 * 3)
                pixels = bytes(60 * k + value // 4 for value in noise)
                harness.write_png(os.path.join(folder, f"class{k}", f"{i}.png"), 16, pixels)
        return folder

    def observer(self, address, train, test, name="judge", flags=()):
        args = [os.path.join(harness.BIN, "starling-client"), "--role", "observer", "--server", address, "--name", name]
        args += ["--train", train, "--test", test, "--state", self.path("client-" + name), "--threads", "1"]
        daemon = harness.Daemon(f"observer({name})", args + ["--log-format", "json", *flags])
        self.daemons.append(daemon)
        return daemon

    def eval(self, server, round, train, test):
        model = os.path.join(server.state, "models", f"round-{round:06}.starling")
        done = self.run_to_end("starling", "eval", "--model", model, "--train", train, "--test", test, "--knn", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout.splitlines()[-1])["knn_top1"]

    def check_history(self, server, train, test, least):
        """Every evaluation that the status shows is that of `starling eval`, and stands in the history file."""
        rounds = self.status(server)["history"]
        evaluated = [round for round in rounds if round["knn_top1"] is not None]
        self.assertGreaterEqual(len(evaluated), least)
        base = sqlite3.connect(f"file:{server.state}/history.db?mode=ro", uri=True)
        kept = dict(base.execute("SELECT round, knn_top1 FROM round"))
        base.close()
        for round in evaluated:
            path = os.path.join(server.state, "models", f"round-{round['round']:06}.starling")
            if os.path.exists(path):
                self.assertEqual(round["knn_top1"], self.eval(server, round["round"], train, test))
            if kept[round["round"]] is not None:
                self.assertAlmostEqual(kept[round["round"]], round["knn_top1"], places=8)
        return evaluated, kept

    def test_it_shows_what_eval_says_and_is_counted_nowhere(self):
        train, test = self.labelled("train", 8), self.labelled("test", 5)
        server = self.server(plan={"min_clients": 2, "rounds": 4}, keep_every=1)
        observer = self.observer(server.address, train, test)
        server.wait_for("observer_joined", name="judge")
        first = self.client("a", server.address)
        server.wait_for("client_joined", name="a")
        self.assertEqual(self.status(server)["state"], "WAITING")  # an observer and a trainer are no two trainers
        clients = [first, self.client("b", server.address)]
        server.wait_for("done")
        at = server.wait_for("aggregate_evaluated", round=4)
        self.assertEqual(observer.exit_code(), 0)  # not before the last model was evaluated
        self.check_finished(server, clients, rounds=4, images=24)
        evaluated, kept = self.check_history(server, train, test, least=1)
        self.assertEqual(evaluated[-1]["round"], 4)
        self.wait_for_kept(server, 4)
        logged = float(server.events[at - 1]["knn_top1"])
        self.assertAlmostEqual(logged, evaluated[-1]["knn_top1"], places=5)
        judge = next(client for client in self.status(server)["clients"] if client["name"] == "judge")
        self.assertEqual(judge["role"], "observer")
        text = self.run_to_end("starling", "status", "--server", server.address).stdout
        self.assertIn("observer", text)
        self.assertIn("kNN", text)
        # Its row outlives a restart of the server.
        self.assertEqual(server.stop(), 0)
        again = self.server(plan={"min_clients": 2, "rounds": 4}, keep_every=1)
        self.assertEqual(self.status(again)["history"][-1]["knn_top1"], evaluated[-1]["knn_top1"])

    def wait_for_kept(self, server, round):
        """The history file is written behind the event."""

        def kept(_):
            base = sqlite3.connect(f"file:{server.state}/history.db?mode=ro", uri=True)
            (value,) = base.execute("SELECT knn_top1 FROM round WHERE round = ?", (round,)).fetchone()
            base.close()
            return value is not None

        self.wait_for_status(server, kept)

    def test_it_outlives_the_server(self):
        train, test = self.labelled("train", 6), self.labelled("test", 4)
        server = self.server(plan={"min_clients": 1, "rounds": 200}, keep_every=1)
        observer = self.observer(server.address, train, test)
        self.client("a", server.address)
        server.wait_for("aggregate_evaluated")
        server.kill9()
        again = self.server(listen=server.address, plan={"min_clients": 1, "rounds": 200}, keep_every=1)
        again.wait_for("aggregate_evaluated", after=again.wait_for("observer_joined", name="judge"))
        self.check_history(again, train, test, least=1)
        self.assertEqual(observer.stop(), 0)
        again.wait_for("client_left", name="judge")
        again.wait_for("round_durable", after=len(again.events))  # rounds go on without it

    def test_folders_that_it_cannot_use(self):
        train, test = self.labelled("train", 3), self.labelled("test", 3)
        other = self.labelled("other", 3, classes=4)
        flat, empty = self.images("flat"), self.path("empty")
        os.makedirs(empty)
        server = self.server(plan={"min_clients": 1})
        cases = [
            (train, empty, "test: the folder is empty"),
            (self.path("nowhere"), test, "train: No such file"),
            (flat, test, "outside class folders"),
            (train, other, "has no images in the training folder"),
        ]
        for i, (left, right, why) in enumerate(cases):
            with self.subTest(why):
                args = ["--role", "observer", "--server", server.address, "--name", f"j{i}", "--threads", "1"]
                args += ["--state", self.path(f"state{i}"), "--train", left, "--test", right]
                done = self.run_to_end("starling-client", *args)
                self.assertEqual(done.returncode, 65, done.stderr)
                self.assertIn(why, done.stderr)
        done = self.run_to_end("starling-client", "--role", "observer", "--train", train, "--check-config")
        self.assertEqual(done.returncode, 78)
        self.assertIn("--test DIR", done.stderr)
        done = self.run_to_end("starling-client", "--role", "judge", "--check-config")
        self.assertEqual(done.returncode, 78)


if __name__ == "__main__":
    unittest.main()
