"""run.py at its quick sizes: that liars lie, that a measurement whose lies were not told says so, and that each
measurement comes to its end. Liars is a matter of seconds; Measurements takes longer."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
BIN = os.environ["STARLING_BIN"]
PROGRAMS = os.environ["STARLING_ATTACK"]


class Attack(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="starling-attack-test-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.build(os.path.join(PROGRAMS, "attack_liar"))

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def build(self, liar):
        """A build folder with this program as the liar."""
        shutil.rmtree(self.path("build"), ignore_errors=True)
        os.makedirs(self.path("build", "tests"))
        os.symlink(BIN, self.path("build", "bin"))
        os.symlink(os.path.join(PROGRAMS, "attack_project"), self.path("build", "tests", "attack_project"))
        os.symlink(liar, self.path("build", "tests", "attack_liar"))

    def run_quick(self, what, out="out"):
        command = [os.path.join(HERE, "run.py"), what, "--quick", "--build", self.path("build")]
        command += ["--out", self.path(out), "--memory", self.folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
        self.assertEqual([n for n in os.listdir(self.folder) if n.startswith("starling-attack-")], [])
        return done

    def results(self, what):
        folder, found = self.path("out", what, "cells"), {}
        for name in os.listdir(folder):
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                found[name[: -len(".json")]] = json.load(file)["result"]
        return found

    def table(self, what):
        with open(self.path("out", what, "table.md"), encoding="utf-8") as file:
            return file.read()


class Liars(Attack):
    def test_one_of_five_moves_the_mean_and_not_the_median(self):
        done = self.run_quick("poison")
        self.assertEqual(done.returncode, 0, done.stderr)
        length = {name: result["length"] for name, result in self.results("poison").items()}
        mean, median = (length[f"one-of-five-scale-100-{rule}"] / length[f"one-of-five-none-{rule}"]
                        for rule in ("mean", "median"))  # fmt: skip
        self.assertGreater(mean, 1.2)
        self.assertLess(abs(median - 1), 0.02)
        self.assertIn("| median |", self.table("poison"))

        again = self.run_quick("poison")
        self.assertEqual(again.stdout, "poison: 4 cells, 4 finished before, 0 to do\n")

    def test_a_lie_that_was_not_told_is_no_measurement(self):
        self.build(os.path.join(BIN, "starling-client"))  # honest, whatever it is asked to be
        done = self.run_quick("poison")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("lies were told by 0 of 1 sites", done.stderr)


class Measurements(Attack):
    def test_bank(self):
        done = self.run_quick("bank")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("| copy |", self.table("bank"))

    def test_privacy(self):
        done = self.run_quick("privacy")
        self.assertEqual(done.returncode, 0, done.stderr)
        results = self.results("privacy")
        clear, drowned = (results[name]["snapshots"][-1] for name in ("f32", "noise-1"))
        self.assertGreater(clear["top1"], 10 * clear["chance"])  # features of known images are known
        self.assertGreater(clear["auc"], 0.6)
        self.assertLess(drowned["top1"], clear["top1"] / 2)
        self.assertLess(abs(drowned["auc"] - 0.5), 0.2)


if __name__ == "__main__":
    sys.exit(unittest.main())
