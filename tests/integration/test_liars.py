"""Contributions that lie, among real processes: what a rule makes of one liar in five, across kill -9 of the server in the
middle of a round whose updates lie on its disk; and an update one part of which is too long, in a run's first round."""
import os
import struct
import subprocess
import unittest

import harness

HONEST = {"a": 0.001, "b": 0.002, "c": 0.003, "d": 0.004}
PLAN = {"rounds": 3, "min_clients": 5}


class Liars(harness.Federation):
    def teller(self, server, name, value, images=10, rows=0, seed=0, statistics=None):
        host, port = server.address.rsplit(":", 1)
        args = [os.environ["STARLING_TELLER"], host, port, name, str(value), str(images), str(rows), str(seed)]
        if statistics is not None:
            args.append(str(statistics))
        process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)

        def end():
            if process.poll() is None:
                process.kill()
            process.wait()
            process.stdout.close()

        self.addCleanup(end)
        return process

    def heard(self, process):
        out, _ = process.communicate(timeout=harness.WAIT_S)
        self.assertEqual(process.returncode, 0, out)
        return out

    def floats(self, server, round):
        data = self.model(server, round)
        return struct.unpack(f"<{len(data) // 4}f", data)

    def check_moved(self, server, round, by):
        """Every number of the model has moved by as much."""
        for before, after in zip(self.floats(server, round - 1), self.floats(server, round)):
            self.assertAlmostEqual(after - before, by, delta=1e-6)

    def spool(self, server):
        folder = os.path.join(server.state, "spool")
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else None

    def test_one_liar_of_five(self):
        for rule, moves in (("median", 0.003), ("trimmed", 0.003), ("krum", 0.0025)):
            plan = {**PLAN, "aggregation.rule": rule, "aggregation.norm_limit": 0}
            server = self.server(state=rule, plan=plan, keep_every=1)
            # The liar claims a million images, too, and the mean would follow it.
            tellers = [self.teller(server, name, value) for name, value in HONEST.items()]
            for name in HONEST:
                server.wait_for("client_joined", name=name)
            tellers.append(self.teller(server, "liar", 1, images=1000000))
            server.wait_for("done")
            for teller in tellers:
                self.assertEqual(self.heard(teller).count("counted=1"), 3)
            for round in (1, 2, 3):
                self.check_moved(server, round, moves)
            self.assertEqual(server.count("update_left_out", name="liar"), 3 if rule == "krum" else 0)
            self.assertEqual(self.spool(server), [])
            self.assertEqual(server.stop(), 0)

    def test_killed_with_a_spool(self):
        plan = {**PLAN, "aggregation.rule": "median"}
        server = self.server(plan=plan, keep_every=1)
        address = server.address
        tellers = [self.teller(server, name, value) for name, value in HONEST.items()]
        fifth = self.teller(server, "e", 0.005)
        server.wait_for("round_durable", round=1)
        fifth.kill()
        for name in HONEST:  # Round 2 waits for the fifth.
            server.wait_for("contribution_accepted", round=2, name=name)
        names = self.spool(server)
        self.assertLessEqual({"update-" + name for name in HONEST}, set(names))
        with open(os.path.join(server.state, "spool", "update-a"), "rb") as file:
            self.assertEqual(struct.unpack("<f", file.read(4)), struct.unpack("<f", struct.pack("<f", 0.001)))
        server.kill9()
        self.assertEqual(self.spool(server), names)
        with open(os.path.join(server.state, "spool", "update-e"), "wb") as file:
            file.write(b"left by an earlier process")
        server = self.server(listen=address, plan=plan, keep_every=1)
        server.wait_for("run_resumed", round=1)
        tellers.append(self.teller(server, "e", 0.005))
        server.wait_for("done")
        for teller in tellers:
            self.heard(teller)
        self.assertEqual(self.history(server), [(round, 5, 50) for round in (1, 2, 3)])
        for round in (1, 2, 3):
            self.check_moved(server, round, 0.003)
        self.assertEqual(self.spool(server), [])
        self.assertEqual(server.stop(), 0)

    def test_too_long_an_update(self):
        self.check_too_long("trained parameters", value=1, statistics=0.001)

    def test_too_long_statistics(self):
        """Nothing that is trained differs."""
        self.check_too_long("statistics of batch normalisation", value=0.001, statistics=1)

    def check_too_long(self, part, value, statistics):
        """The mean; the first round finds out by itself, and everybody's contribution is taken once more."""
        plan = {"rounds": 2, "min_clients": 4, "clients_per_round": 5, "round_deadline": "20s"}
        server = self.server(plan=plan, keep_every=1)
        tellers = [self.teller(server, name, value) for name, value in list(HONEST.items())[:3]]
        for name in list(HONEST)[:3]:
            server.wait_for("client_joined", name=name)
        liar = self.teller(server, "liar", value, statistics=statistics)
        server.wait_for("round_recalled", round=1, name="liar")
        server.wait_for("contribution_declined", name="liar", reason="norm")
        tellers.append(self.teller(server, "d", HONEST["d"]))
        server.wait_for("done")
        for teller in tellers:
            self.heard(teller)
        self.assertIn(f"declined round=1 reason=norm the length of the update's {part} is", self.heard(liar))
        for round in (1, 2):
            self.check_moved(server, round, 0.0025)
        self.assertIsNone(self.spool(server))  # The mean needs none.
        self.assertEqual(server.stop(), 0)

    def test_features_of_others(self):
        """What others made is nobody else's contribution; the update that comes with it counts."""
        server = self.server(plan={"rounds": 2, "min_clients": 3})
        tellers = [self.teller(server, name, 0.001, rows=16, seed=seed) for seed, name in enumerate("abc")]
        server.wait_for("round_durable", round=1)
        copier = self.teller(server, "copier", 0.001, rows=16, seed=1)
        server.wait_for("done")
        for teller in [*tellers, copier]:
            self.heard(teller)
        self.assertEqual(self.status(server)["bank"]["contributors"], 3)
        self.assertEqual(server.stop(), 0)

        alone = {"rounds": 2, "min_clients": 1, "clients_per_round": 1}
        server = self.server(state="late", plan={**alone, "round_deadline": "20s"})
        first = self.teller(server, "a", 0.001, rows=16, seed=1)
        server.wait_for("round_durable", round=1)
        first.kill()
        copier = self.teller(server, "copier", 0.001, rows=16, seed=1)
        server.wait_for("features_copied", name="copier", round=2, rows=16, looked_at=16, near=16)
        server.wait_for("done")
        self.assertIn("counted=1", self.heard(copier))
        self.assertEqual(self.history(server), [(1, 1, 10), (2, 1, 10)])
        self.assertEqual(self.status(server)["bank"]["contributors"], 1)
        self.assertEqual(server.stop(), 0)

    def test_a_rule_that_could_do_nothing(self):
        for rule, least in (("median", 3), ("trimmed", 5), ("krum", 5)):
            done = self.run_to_end(
                "starling-server", "--check-config", "--set", f"plan.min_clients={least - 1}",
                "--set", f"plan.aggregation.rule={rule}",
            )
            self.assertEqual(done.returncode, 78)
            self.assertIn(f"fewer than {least} contributions", done.stderr)

    def test_a_swarm_knows_the_mean_alone(self):
        server = self.server(plan={"aggregation.rule": "median"})
        done = self.run_to_end("starling", "swarm", "--server", server.address, "--clients", "3")
        self.assertEqual(done.returncode, 78)
        self.assertIn("set aggregation.rule to mean", done.stderr)


if __name__ == "__main__":
    unittest.main()
