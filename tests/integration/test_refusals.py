"""What is refused at the door or at the start: the exit code, and a sentence that says where and what to do."""
import glob
import os
import signal
import stat
import unittest

import harness


class Refusals(harness.Federation):
    def refused(self, code, program, *args):
        done = self.run_to_end(program, *args)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertEqual(done.stdout, "")
        return done.stderr

    def server_args(self, server, state):
        args = ["--listen", server.address, "--state", self.path(state)]
        for key, value in harness.TINY_PLAN.items():
            args += ["--set", f"plan.{key}={value}"]
        return args

    def test_two_servers_on_one_address(self):
        server = self.server()
        said = self.refused(69, "starling-server", *self.server_args(server, "second"))
        self.assertIn(server.address, said)
        # No run has begun, so that a corrected start is not told of another plan.
        self.assertEqual(glob.glob(self.path("second", "checkpoint-*")), [])

    def test_two_servers_on_one_state(self):
        server = self.server()
        said = self.refused(69, "starling-server", *self.server_args(server, "server"), "--log-format", "text")
        self.assertIn(server.state, said)
        self.assertIn("another server", said)

    def test_two_clients_on_one_state(self):
        server = self.server()
        client = self.client("a", server.address)
        client.wait_for("welcomed")
        args = ["--server", server.address, "--images", self.images("a"), "--state", self.path("client-a")]
        said = self.refused(69, "starling-client", *args)
        self.assertIn(self.path("client-a"), said)

    def test_wrong_configurations(self):
        cases = [
            ("listen: 127.0.0.1:0\nplan:\n  min_client: 2\n", ':3:3: unknown key "min_client"', 'did you mean "min_clients"?'),
            ("plan:\n  rounds: many\n", ":2:11: ", "whole number"),
            ("upload_slots: 0\n", ":1:15: ", "from 1 to 64"),
            ("idle_timeout: 60\n", ":1:15: ", "duration"),
            ("plan:\n  batch: 8\n  bn_groups: 3\n", "bn_groups", "batch"),
            ("listen: here\n", "listen", "here"),
            ("plan: [\n", ":1:7: ", "section"),
        ]
        for text, where, what in cases:
            with self.subTest(text):
                path = self.path("server.yaml")
                with open(path, "w") as file:
                    file.write(text)
                said = self.refused(78, "starling-server", "--config", path, "--state", self.path("never"))
                self.assertIn(where, said)
                self.assertIn(what, said)
                self.assertEqual(said.count("\n"), 1)
        self.assertFalse(os.path.exists(self.path("never")))
        self.assertIn("absent.yaml", self.refused(78, "starling-server", "--config", self.path("absent.yaml")))
        said = self.refused(78, "starling-client", "--images", self.folder, "--name", "two words")
        self.assertIn("two words", said)

    def test_the_plan_of_the_readme(self):
        readme = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "README.md")
        with open(readme, encoding="utf-8") as file:
            plans = [part.split("```")[0] for part in file.read().split("```yaml\n")[1:]]
        self.assertEqual(len(plans), 1)
        with open(self.path("server.yaml"), "w", encoding="utf-8") as file:
            file.write(plans[0])
        trust = self.path("starling-trust")
        self.assertEqual(self.run_to_end("starling", "ca", "init", trust, "--address", "coordinator.example:7640").returncode, 0)
        done = self.run_to_end("starling-server", "--config", self.path("server.yaml"), "--trust", trust, "--check-config")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(len(plans[0].splitlines()), plans[0].count("#"))  # each key with a few words

    def test_what_is_printed_can_be_read_back(self):
        for program, flags in (("starling-server", ["--set", "plan.rounds=7"]), ("starling-client", ["--images", "x"])):
            printed = self.run_to_end(program, "--print-config", *flags)
            self.assertEqual(printed.returncode, 0, printed.stderr)
            path = self.path(program + ".yaml")
            with open(path, "w") as file:
                file.write(printed.stdout)
            again = self.run_to_end(program, "--config", path, "--print-config")
            self.assertEqual(again.stdout, printed.stdout)
            self.assertEqual(self.run_to_end(program, "--config", path, "--check-config").returncode, 0)

    def test_what_is_no_file_is_not_read(self):
        fifo = self.path("fifo")
        os.mkfifo(fifo)  # nobody writes: a reader that waits would wait for ever
        for path in (fifo, self.folder):
            said = self.refused(78, "starling-server", "--config", path, "--print-config")
            self.assertIn(path, said)
            self.assertIn("no regular file", said)
            self.assertIn("no regular file", self.refused(74, "starling", "inspect", "--model", path))

    def test_wrong_usage(self):
        said = self.refused(64, "starling-server", "--lisen", "x")
        self.assertIn("--listen", said)
        self.refused(64, "starling-client", "--threads", "0")
        for program in ("starling-server", "starling-client"):
            done = self.run_to_end(program, "--help")
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertTrue(done.stdout.startswith("Examples:"))
            self.assertEqual(self.run_to_end(program, "--version").returncode, 0)

    def test_wrong_uses(self):
        """Of each command: a file or folder that is missing, one that is something else, a wrong value, an unknown flag. Each
        is named, and what can be done is said."""
        images, empty, out = self.images("a"), self.path("empty"), self.path("out")
        os.mkdir(empty)
        os.chmod(empty, 0o755)
        absent, file = self.path("absent"), self.path("file")
        with open(file, "wb") as stream:
            stream.write(b"neither a model nor an archive, nor a token\n" * 200)
        nobody = "127.0.0.1:1"
        flat = ["--train", images, "--test", images]
        cases = {
            "starling": [
                (64, [], "which verb?"),
                (64, ["statsu"], 'did you mean "status"?'),
                (65, ["eval", "--model", absent, *flat], absent + ": read: not found"),
                (65, ["eval", "--model", file, *flat], file + ": not a Starling model"),
                (64, ["eval", "--model", file], "--train DIR is missing"),
                (65, ["embed", "--model", absent, "--images", images, "--out", out], absent),
                (65, ["embed", "--model", file, "--images", images, "--out", out], file),
                (73, ["embed", "--model", file, "--images", images, "--out", absent + "/x"], absent),
                (65, ["inspect", "--model", file], file),
                (64, ["inspect", file], "--help shows"),
                (73, ["draw-images", "--out", images], "name a new folder"),
                (73, ["draw-images", "--out", file], file),
                (64, ["draw-images", "--out", out, "--classes", "13"], "from 1 to 12"),
                (65, ["import-cifar", "--archive", absent, "--out", out], absent),
                (65, ["import-cifar", "--archive", file, "--out", out], file),
                (74, ["import-cifar", "--archive", images, "--out", out], images),
                (65, ["split", "--images", absent, "--clients", "2", "--split", "iid", "--out", out], absent),
                (65, ["split", "--images", empty, "--clients", "2", "--split", "iid", "--out", out], empty),
                (64, ["split", "--images", images, "--clients", "2", "--split", "fair", "--out", out], "iid, classes:K"),
                (65, ["split", "--images", images, "--clients", "2", "--split", "classes:1", "--out", out], "only iid"),
                (64, ["bench"], "starling bench --help"),
                (64, ["bench", "step", "--blocks", "x"], "as in 2,2,2,2"),
                (65, ["bench", "input", "--images", absent], absent),
                (64, ["bench", "wire", "--seconds", "x"], "--seconds"),
                (64, ["bench", "aggregate", "--widht", "4"], "did you mean --width?"),
                (78, ["experiment", absent, "--out", out], absent),
                (78, ["experiment", images, "--out", out], "no regular file"),
                (64, ["experiment", absent], "--out DIR is missing"),
                (73, ["demo", "--workdir", images], "name a new folder"),
                (78, ["demo", "--set", "round=3", "--workdir", out], 'did you mean "rounds"?'),
                (64, ["demo", "--set", "rounds", "--workdir", out], "KEY=VALUE"),
                (64, ["status"], "--server, --trust or --identity"),
                (69, ["status", "--server", nobody], "does the server run"),
                (64, ["status", "--server", "here"], "HOST:PORT"),
                (65, ["status", "--trust", absent], absent),
                (78, ["status", "--trust", file], "starling ca init"),
                (73, ["ca", "init", images, "--address", "here:1"], "name a new or an empty one"),
                (65, ["status", "--identity", absent], "starling join TOKEN"),
                (64, ["join", file], "--out DIR is missing"),
                (65, ["join", absent, "--out", out], absent),
                (65, ["join", file, "--out", out], file),
                (69, ["swarm", "--server", nobody, "--clients", "2"], nobody),
                (64, ["swarm", "--server", nobody, "--clients", "0"], "from 1 to 20000"),
                (65, ["swarm", "--server", nobody, "--clients", "2", "--trust", absent], absent),
            ],
            "starling-server": [
                (78, ["--config", absent], absent),
                (73, ["--state", file], file),
                (78, ["--listen", "here"], "HOST:PORT"),
                (65, ["--trust", absent, "--state", out, "--listen", "127.0.0.1:0"], "starling ca init"),
                (78, ["--trust", file, "--state", out, "--listen", "127.0.0.1:0"], "starling ca init"),
                (65, ["--trust", absent, "--check-config"], "starling ca init"),
                (78, ["--trust", file, "--check-config"], "starling ca init"),
                (78, ["--set", "plan.round_deadline=5"], "write a number with a unit"),
                (64, ["server.yaml"], 'unexpected word "server.yaml"; --help shows'),
                (64, ["--new-rnu"], "did you mean --new-run?"),
            ],
            "starling-client": [
                (78, [], "--images DIR does"),
                (78, ["--config", absent], absent),
                (65, ["--images", absent], absent),
                (65, ["--images", file], file),
                (73, ["--images", images, "--state", file], file),
                (65, ["--images", images, "--join", absent], absent),
                (65, ["--images", images, "--join", file], file),
                (78, ["--images", images, "--role", "king"], "trainer, observer"),
                (64, ["--image", images], "did you mean --images?"),
            ],
        }
        for program, uses in cases.items():
            for code, args, hint in uses:
                with self.subTest(" ".join([program, *args])):
                    self.assertIn(hint, self.refused(code, program, *args))

    def test_image_folders(self):
        server = self.server(plan={"min_clients": 1})
        empty, broken = self.path("empty"), self.path("broken")
        os.mkdir(empty)
        os.mkdir(broken)
        with open(os.path.join(broken, "x.png"), "w") as file:
            file.write("no picture")
        for folder in (self.path("missing"), empty, broken):
            args = ["--server", server.address, "--images", folder, "--state", self.path("s"), "--name", "s"]
            self.assertIn(folder, self.refused(65, "starling-client", *args))

    def test_a_broken_image_is_skipped(self):
        server = self.server(plan={"min_clients": 1, "rounds": 1})
        images = self.images("a", count=23)
        with open(os.path.join(images, "zz.png"), "wb") as file:
            file.write(b"\x89PNG\r\n\x1a\nand then nothing that makes sense")
        client = self.client("a", server.address)
        client.wait_for("image_skipped")
        self.check_finished(server, [client], rounds=1, images=23)

    def test_another_plan_and_a_new_run(self):
        server = self.server(plan={"min_clients": 1, "rounds": 2})
        client = self.client("a", server.address)
        self.check_finished(server, [client], rounds=2, images=24)
        run = self.status(server)["run"]
        self.assertEqual(server.stop(), 0)

        changed = {"rounds": 3, "min_clients": 1, "learning_rate": 0.5}
        args = self.server_args(server, "server")
        for key, value in changed.items():
            args += ["--set", f"plan.{key}={value}"]
        said = self.refused(78, "starling-server", *args)
        for key in ("rounds", "learning_rate", "--new-run"):
            self.assertIn(key, said)
        self.assertNotIn("batch", said)

        server = self.server(plan=changed, flags=["--new-run"])
        at = server.wait_for("run_moved_aside")
        self.assertIn("--new-run", server.events[at - 1]["clients"])
        self.assertNotEqual(self.status(server)["run"], run)
        self.assertTrue(os.path.exists(os.path.join(server.state, "old-" + run, "checkpoint-000002")))
        # The client's state belongs to the old run: both sides name both, and a new start is the client's own wish.
        client = self.client("a", server.address)
        self.assertEqual(client.exit_code(), 76)
        said = "\n".join(client.lines)
        self.assertIn(run, said)
        self.assertIn(self.status(server)["run"], said)
        self.assertIn("--new-run", said)
        server.wait_for("client_rejected")
        client = self.client("a", server.address, flags=["--new-run"])
        self.check_finished(server, [client], rounds=3, images=24)

    def test_models_without_a_checkpoint_are_not_replaced(self):
        moved = []
        for again in ("", "-2"):  # what was moved aside before is not replaced either
            plan = {"min_clients": 1, "rounds": 2, "seed": 1 + len(again)}
            server = self.server(plan=plan, flags=["--new-run"])
            for path, model in moved:
                self.assertEqual(harness.model_floats(path), model)
            client = self.client("a", server.address, flags=["--new-run"])
            self.check_finished(server, [client], rounds=2, images=24)
            self.assertEqual(server.stop(), 0)
            model = self.model(server, 2)
            for path in glob.glob(os.path.join(server.state, "checkpoint-*")):
                os.remove(path)
            said = self.refused(65, "starling-server", *self.server_args(server, "server"))
            self.assertIn("--new-run", said)
            self.assertEqual(self.model(server, 2), model)
            moved.append((os.path.join(server.state, "old-damaged" + again, "models", "round-000002.starling"), model))
        self.server(plan=plan, flags=["--new-run"])
        for path, model in moved:
            self.assertEqual(harness.model_floats(path), model)

    def test_output_never_joins_its_images(self):
        images = self.images("a")
        inside = os.path.join(images, "sub")
        for args in (("demo", "--workdir", inside), ("split", "--clients", "2", "--split", "iid", "--out", inside)):
            said = self.refused(73, "starling", *args, "--images", images)
            self.assertIn("lies in", said)
            self.assertFalse(os.path.exists(inside))

    def test_features_replace_nothing_but_features(self):
        server = self.server(plan={"min_clients": 1, "rounds": 1})
        model = os.path.join(server.state, "models", "round-000000.starling")
        before = self.model(server, 0)
        fifo, link = self.path("fifo"), self.path("link.npy")
        os.mkfifo(fifo)
        os.symlink("elsewhere", link)
        args = ["starling", "embed", "--model", model, "--images", self.images("a"), "--out"]
        for out in (fifo, link, self.folder, model):
            self.refused(73, *args, out)
        self.refused(73, *args, self.path("z"), "--paths", self.path("z"))
        self.assertEqual(self.model(server, 0), before)
        self.assertTrue(stat.S_ISFIFO(os.lstat(fifo).st_mode) and os.path.islink(link))
        self.assertFalse(os.path.exists(self.path("z")))
        for _ in range(2):  # the features themselves may be written again
            done = self.run_to_end(*args, self.path("z"))
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_a_name_that_is_in_use(self):
        """Another site of the same name waits until the first one is gone, instead of throwing it out."""
        server = self.server(plan={"min_clients": 2}, idle_timeout="2s")
        first = self.client("a", server.address)
        server.wait_for("client_joined", name="a")
        second = self.client("a", server.address, state="another")
        second.wait_for("rejected")
        self.assertEqual(server.count("client_left"), 0)
        self.assertEqual(first.stop(), 0)
        server.wait_for("client_joined", server.wait_for("client_left", name="a"), name="a")

    def test_a_second_signal_does_not_wait(self):
        """The first asks; while a save is stuck, the second ends the process."""
        server = self.server(plan={"min_clients": 1})
        os.mkfifo(os.path.join(server.state, "checkpoint-000001.tmp"))
        self.client("a", server.address)
        server.wait_for("round_closed", round=1)
        server.signal(signal.SIGTERM)
        server.wait_for("signal")
        server.signal(signal.SIGTERM)
        self.assertEqual(server.exit_code(), 1)


if __name__ == "__main__":
    unittest.main()
