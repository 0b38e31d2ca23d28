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
        for program in ("attack_project", "attack_credulous"):
            os.symlink(os.path.join(PROGRAMS, program), self.path("build", "tests", program))
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
        self.assertLess(abs(median - 1), 0.1)
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
        for name, result in self.results("bank").items():
            self.assertEqual(result["declined"], 0, name)
            screened = name.endswith(("-constant-screened", "-copy-screened"))
            self.assertEqual(result["dropped"], result["told"] if screened else 0, name)

    def test_privacy(self):
        done = self.run_quick("privacy")
        self.assertEqual(done.returncode, 0, done.stderr)
        results = self.results("privacy")
        last, known = (results["f32"]["snapshots"][-1], results["f32"]["known"]["sorted"])
        self.assertGreater(last["top1"], 3 * last["chance"])
        self.assertGreater(known["top1"], 10 * known["chance"])
        self.assertLess(results["f32-each-with-a-secret"]["known"]["sorted"]["top1"], known["top1"])
        self.assertLess(results["noise-1"]["known"]["sorted"]["top1"], 10 * known["chance"])
        self.assertGreater(results["noise-1"]["epsilon"], 0)
        self.assertNotIn("epsilon", results["f32"])

    def test_what_scores_nothing_and_all(self):
        """A spy that guesses scores chance, one that knows scores all."""
        paths = [f"in/{i}" for i in range(100)] + [f"out/{i}" for i in range(100)]
        script = (
            "import json, sys, numpy as np; sys.path.insert(0, sys.argv[1]); import guess\n"
            "draw = np.random.default_rng(1); near = draw.standard_normal((50, 200)) / 12\n"
            "shown, paths = [str(i) for i in range(50)], json.loads(sys.argv[2])\n"
            "blind = guess.guess(near, shown, paths)\n"
            "near[np.arange(50), np.arange(50)] = 0.9\n"
            "print(json.dumps([blind, guess.guess(near, shown, paths)]))\n"
        )
        done = subprocess.run(["/usr/bin/python3", "-B", "-c", script, HERE, json.dumps(paths)], capture_output=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        blind, sees = json.loads(done.stdout)
        self.assertLess(blind["top1"], 0.1)
        self.assertLess(abs(blind["auc"] - 0.5), 0.15)
        self.assertEqual([sees[key] for key in ("top1", "auc", "tpr_at_1")], [1, 1, 1])
        self.assertEqual(sees["images"], 50)


if __name__ == "__main__":
    sys.exit(unittest.main())
