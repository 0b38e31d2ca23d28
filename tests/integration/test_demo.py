"""`starling demo` from end to end, with processes killed on the way, and the verbs that read what it leaves."""
import json
import os
import signal
import unittest

import harness

KEYS = (
    "rounds clients images seconds knn_top1 knn_top1_untrained knn_top1_midway linear_top1 linear_top1_untrained "
    "knn_top1_pixels model workdir bytes_up bytes_down server_peak_rss_bytes"
).split()
SET = {
    "model.width": 16, "model.blocks": "1", "model.input": 16, "model.features": 16, "batch": 8, "bn_groups": 2,
    "queue": 64, "local_steps": 1, "fusion.remote": 32, "fusion.upload": 16, "matching.neighbours": 3,
}


def children(pid):
    """Name (as the program was called with --name, or "server") to process id."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                words = file.read().decode().split("\0")
        except (OSError, ValueError):
            continue  # it ended meanwhile
        if parent != pid or not words[0].startswith("starling-"):
            continue  # among them a child that is still a copy of the demo
        found[words[words.index("--name") + 1] if "--name" in words else "server"] = int(entry)
    return found


class Demo(harness.Federation):
    def setUp(self):
        super().setUp()
        for name in ("east", "west"):
            harness.make_images(self.path("photos", name), 20, seed=name)

    def demo(self, *args, clients=2):
        """The running demo, its output as lines."""
        sets = [f"--set={key}={value}" for key, value in SET.items()]
        return self.starling("demo", "--clients", str(clients), *sets, *args)

    def read_until(self, process, start):
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if line.startswith(start):
                return lines
        self.fail(f"the demo ended without a line {start!r}:\n" + "\n".join(lines))

    def test_killed_processes_come_back_and_the_result_is_whole(self):
        # Rounds long enough that the run is not over before the first line is read; then the other client is held, so that
        # no round closes until both deaths have been seen.
        process = self.demo("--images", "photos", "--rounds", "6", "--json", "--workdir", "w", "--set", "local_steps=40")
        self.read_until(process, "round  1/6")
        held = children(process.pid)["client-2"]
        os.kill(held, signal.SIGSTOP)
        os.kill(children(process.pid)["client-1"], signal.SIGKILL)
        lines = self.read_until(process, "client-1 died")
        os.kill(children(process.pid)["server"], signal.SIGKILL)
        lines += self.read_until(process, "server died")
        os.kill(held, signal.SIGCONT)
        rest = process.stdout.read().splitlines()
        self.assertEqual(process.wait(harness.WAIT_S), 0, "\n".join(lines + rest))
        rounds = [line.split()[1] for line in lines + rest if line.startswith("round ")]
        self.assertEqual(rounds, [f"{r}/6" for r in range(2, 7)])

        result = json.loads(rest[-1])
        self.assertEqual(sorted(result), sorted(KEYS))
        self.assertEqual((result["rounds"], result["clients"], result["images"]), (6, 2, 32))
        self.assertEqual((result["workdir"], result["model"]), ("w", "w/server/models/round-000006.starling"))
        with open(self.path("w", "report.json")) as file:
            report = json.load(file)
        self.assertEqual([row["round"] for row in report["history"]], list(range(1, 7)))
        self.assertTrue(0 < report["linear_top1_midway"] <= 1)
        self.assertEqual(report["restarts"], 2)
        self.assertTrue(os.path.getsize(self.path("w", "report.md")) > 0)
        self.assertFalse([pid for pid in children(process.pid).values()])
        self.verbs(self.path(result["model"]), result)

    def verbs(self, model, result):
        """What the demo said of its model is what the verbs say."""
        done = self.run_to_end("starling", "inspect", "--model", model, "--json")
        self.assertEqual((done.returncode, json.loads(done.stdout)["round"]), (0, 6))
        folders = ["--train", self.path("w", "train"), "--test", self.path("w", "test")]
        done = self.run_to_end("starling", "eval", "--model", model, *folders, "--json")
        scores = json.loads(done.stdout)
        self.assertEqual((scores["images_train"], scores["images_test"]), (32, 8))
        for key in ("knn_top1", "linear_top1", "knn_top1_pixels"):
            self.assertEqual(scores[key], result[key])
        features, paths = self.path("f.npy"), self.path("paths.txt")
        args = ["--images", self.path("w", "test"), "--out", features, "--paths", paths]
        self.assertEqual(self.run_to_end("starling", "embed", "--model", model, *args).returncode, 0)
        with open(paths) as file:
            names = file.read().splitlines()
        self.assertEqual((len(names), names), (8, sorted(names)))
        with open(features, "rb") as file:
            head = file.read(128)
        self.assertIn(b"'shape': (8, 16)", head)
        self.assertEqual(os.path.getsize(features), 128 + 8 * 16 * 4)

    def test_images_without_classes_are_trained_on_but_not_scored(self):
        harness.make_images(self.path("flat"), 20, seed="flat")
        process = self.demo("--images", "flat", "--rounds", "1", "--json")
        lines = process.stdout.read().splitlines()
        self.assertEqual(process.wait(harness.WAIT_S), 0, "\n".join(lines))
        result = json.loads(lines[-1])
        self.assertEqual([result[key] for key in KEYS if "top1" in key], [None] * 6)
        self.assertEqual(result["workdir"], "starling-demo")
        again = [line for line in lines if "--set fusion.enabled=false" in line]  # this run, not just any
        self.assertIn(" demo --images flat --clients 2 --split iid --rounds 1 ", again[0])

    def test_one_client_trains_on_everything(self):
        process = self.demo("--images", "photos", "--rounds", "2", "--json", clients=1)
        lines = process.stdout.read().splitlines()
        self.assertEqual(process.wait(harness.WAIT_S), 0, "\n".join(lines))
        result = json.loads(lines[-1])
        self.assertEqual((result["clients"], result["images"]), (1, 32))
        self.assertEqual(sum("remote negatives 0 %" in line for line in lines), 2)

    def test_ctrl_c_and_a_lost_terminal_stop_everything(self):
        for number in (signal.SIGINT, signal.SIGHUP):
            process = self.demo("--images", "photos", "--rounds", "1000", "--workdir", f"stopped-{int(number)}")
            self.read_until(process, "round ")
            running = children(process.pid)
            self.assertEqual(sorted(running), ["client-1", "client-2", "server"])
            process.send_signal(number)
            self.assertEqual(process.wait(harness.WAIT_S), 1)
            self.assertIn(f"stopped by signal {int(number)}", process.stdout.read())
            for pid in running.values():
                self.assertFalse(os.path.exists(f"/proc/{pid}"))

    def test_a_client_that_cannot_work_ends_the_demo_with_its_reason(self):
        process = self.demo("--images", "photos", "--rounds", "1000", "--workdir", "w")
        self.read_until(process, "round ")
        client = children(process.pid)["client-2"]
        # Its folder is gone when it is started again.
        os.rename(self.path("w", "sites", "client-2"), self.path("elsewhere"))
        os.kill(client, signal.SIGKILL)
        rest = process.stdout.read()
        self.assertEqual(process.wait(harness.WAIT_S), 1)
        self.assertIn("client-2 ended with exit code 65", rest)
        self.assertIn("sites/client-2", rest)
        self.assertIn("a round needs 2 clients and 1 is left", rest)

    def refused(self, code, *args):
        done = self.run_to_end("starling", *args)
        self.assertEqual((done.returncode, done.stdout), (code, ""), done.stderr)
        return done.stderr

    def test_refusals(self):
        self.assertIn('did you mean "demo"?', self.refused(64, "dmeo"))
        self.refused(64)
        self.assertIn("--workdir", self.refused(64, "demo", "--workdri", "x"))
        self.assertIn("model.width", self.refused(78, "demo", "--set", "model.widht=3"))
        self.assertIn("not empty", self.refused(73, "demo", "--workdir", self.path("photos")))
        self.assertIn("127.0.0.1:1", self.refused(69, "status", "--server", "127.0.0.1:1"))
        with open(self.path("bad"), "w") as file:
            file.write("no model")
        self.refused(65, "inspect", "--model", self.path("bad"))
        self.refused(65, "inspect", "--model", self.path("missing"))
        self.refused(65, "eval", "--model", self.path("bad"), "--train", self.path("photos"), "--test", self.path("photos"))
        out = self.path("missing", "f.npy")
        self.refused(73, "embed", "--model", self.path("bad"), "--images", self.path("photos"), "--out", out)

    def test_help(self):
        done = self.run_to_end("starling", "--help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertTrue(done.stdout.startswith("Examples:"))
        verbs = [line.split()[0] for line in done.stdout.partition("Verbs:\n")[2].splitlines() if line.startswith("  ")]
        self.assertIn("demo", verbs)
        for verb in verbs:
            done = self.run_to_end("starling", verb, "--help")
            self.assertEqual((done.returncode, done.stderr), (0, ""), verb)
            self.assertTrue(done.stdout.startswith("Examples:"), verb)
        self.assertTrue(self.run_to_end("starling", "--version").stdout.startswith("starling "))


if __name__ == "__main__":
    unittest.main()
