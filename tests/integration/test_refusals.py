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
        done = self.run_to_end("starling-server", "--config", self.path("server.yaml"), "--check-config")
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
