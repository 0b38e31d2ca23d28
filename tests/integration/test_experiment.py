"""`starling experiment`: a small matrix from end to end, interrupted on the way, and files that it must refuse."""
import json
import os
import signal
import time
import unittest
from xml.etree import ElementTree

import harness

FILE = """\
images: photos
validation_per_class: 4
clients: 2
points: 2
seeds: [1, 2]
splits: [iid, "classes:1"]
plan:
  rounds: 4
  local_steps: 1
  batch: 8
  bn_groups: 1
  queue: 64
  model: {width: 8, blocks: [1], input: 16, features: 16}
  fusion: {remote: 32, upload: 16}
  matching: {neighbours: 3, start_round: 2, ramp_rounds: 1}
methods:
  fedavg: {seeds: 1, fusion: {enabled: false}, matching: {enabled: false}}
  both: {map: true}
  alone: {place: alone, seeds: 1, fusion: {enabled: false}, matching: {enabled: false}}
  centralised: {place: one, seeds: 1, fusion: {enabled: false}, matching: {enabled: false}}
"""
# Four methods on two splits, `both` with two seeds; one place knows no split.
CELLS = ["fedavg-iid-seed-1", "both-iid-seed-1", "alone-iid-seed-1", "centralised-all-seed-1", "fedavg-classes-1-seed-1",
         "both-classes-1-seed-1", "alone-classes-1-seed-1", "both-iid-seed-2", "both-classes-1-seed-2"]


class Experiment(harness.Federation):
    def setUp(self):
        super().setUp()
        for name in ("east", "west"):
            harness.make_images(self.path("photos", name), 24, seed=name)
        self.write(FILE)

    def write(self, text):
        with open(self.path("tiny.yaml"), "w") as file:
            file.write(text)

    def experiment(self, out, *args):
        return self.starling("experiment", "tiny.yaml", "--out", out, *args)

    def run_through(self, out, *args):
        process = self.experiment(out, *args)
        lines = process.stdout.read().splitlines()
        self.assertEqual(process.wait(harness.WAIT_S), 0, "\n".join(lines))
        return lines

    def result(self, out, cell):
        with open(self.path(out, "cells", cell, "result.json")) as file:
            return json.load(file)

    def test_a_matrix_becomes_tables_and_charts(self):
        lines = self.run_through("out")
        self.assertEqual([line.split()[1] for line in lines if line.startswith("running ")], CELLS)
        self.assertEqual(sorted(os.listdir(self.path("out", "cells"))), sorted(CELLS))
        for cell in CELLS:
            self.assertEqual(sorted(os.listdir(self.path("out", "cells", cell))), ["log", "result.json"])
        seen = {self.result("out", cell)["images_seen"] for cell in CELLS}
        self.assertEqual(seen, {4 * 8 * 2})  # the same for all: four rounds of a step of 8 at two sites
        both = self.result("out", "both-classes-1-seed-1")
        self.assertEqual([point["round"] for point in both["curve"]], [2, 4])
        self.assertEqual(len(both["map"]["dots"]), 40)
        self.assertEqual({(dot[2], dot[3]) for dot in both["map"]["dots"]}, {(0, 1), (1, 2)})  # a class a site
        self.assertGreater(both["bytes_up"], self.result("out", "fedavg-classes-1-seed-1")["bytes_up"])
        alone = self.result("out", "alone-iid-seed-1")
        self.assertEqual((alone["clients"], alone["images"]), (2, 40))
        with open(self.path("out", "results.json")) as file:
            rows = {(row["method"], row["split"]): row for row in json.load(file)["rows"]}
        for split in ("iid", "classes:1"):
            scores = [self.result("out", f"both-{split.replace(':', '-')}-seed-{seed}")["knn_top1"] for seed in (1, 2)]
            self.assertAlmostEqual(rows["both", split]["knn_top1"]["mean"], sum(scores) / 2, places=5)
            self.assertAlmostEqual(rows["both", split]["knn_top1"]["sd"], abs(scores[0] - scores[1]) / 2**0.5, places=5)
        with open(self.path("out", "table.md")) as file:
            table = file.read()
        self.assertEqual(table.count("| both | 2 |"), 2)
        self.assertEqual(table.count("| raw pixels |"), 2)
        charts = sorted(name for name in os.listdir(self.path("out")) if name.endswith(".svg"))
        self.assertEqual(charts, ["bytes-classes-1.svg", "bytes-iid.svg", "map-classes-1-both.svg", "map-iid-both.svg",
                                  "rounds-classes-1.svg", "rounds-iid.svg"])
        for name in charts:
            tags = [element.tag.rpartition("}")[2] for element in ElementTree.parse(self.path("out", name)).iter()]
            self.assertEqual(tags.count("circle"), 2 * 40 + 4 if "map" in name else 2 * (6 if "rounds" in name else 4))

        os.makedirs(self.path("out", "cells", CELLS[0], "work", "server"))  # it was cut off before it had cleaned up
        again = self.run_through("out")
        self.assertEqual([line for line in again if line.startswith(("running ", "again "))], [])
        self.assertEqual(sorted(os.listdir(self.path("out", "cells", CELLS[0]))), ["log", "result.json"])
        # Another plan makes other cells: their results do not pass for the new ones.
        self.write(FILE.replace("queue: 64", "queue: 32"))
        again = self.run_through("out", "--jobs", "2")
        self.assertEqual(len([line for line in again if line.startswith("running ")]), len(CELLS))
        self.assertIn(f"again       {len(CELLS)} of them had a result of another plan", "\n".join(again))

    def test_an_interrupted_cell_goes_on_to_the_same_result(self):
        self.write(FILE.replace("rounds: 4", "rounds: 30").replace("points: 2", "points: 3"))
        self.run_through("whole")
        process = self.experiment("cut")
        log = self.path("cut", "cells", "both-iid-seed-1", "log")
        until = time.monotonic() + harness.WAIT_S
        text = ""
        while "round  3/" not in text:
            self.assertLess(time.monotonic(), until, text)
            self.assertIsNone(process.poll())
            if os.path.exists(log):
                with open(log) as file:
                    text = file.read()
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(harness.WAIT_S), 1)
        self.assertIn("the same command goes on", process.stdout.read())
        self.assertTrue(os.path.exists(self.path("cut", "cells", "fedavg-iid-seed-1", "result.json")))
        self.assertFalse(os.path.exists(self.path("cut", "cells", "both-iid-seed-1", "result.json")))
        lines = self.run_through("cut")
        self.assertEqual([line.split()[1] for line in lines if line.startswith("running ")], CELLS[1:])
        with open(log) as file:
            self.assertEqual(file.read().count("client    "), 1)  # the images were dealt out once
        for cell in CELLS:
            expected, actual = self.result("whole", cell), self.result("cut", cell)
            for key in ("knn_top1", "linear_top1", "images_seen", "rounds", "key"):
                self.assertEqual(actual[key], expected[key], (cell, key))
            self.assertEqual([p["knn_top1"] for p in actual["curve"]], [p["knn_top1"] for p in expected["curve"]])

    def test_a_cell_that_fails_is_named_and_the_others_go_on(self):
        os.makedirs(self.path("out", "cells", "fedavg-classes-1-seed-1", "log"))  # no place for its log
        os.makedirs(self.path("out", "cells", "alone-classes-1-seed-1"))
        os.mkfifo(self.path("out", "cells", "alone-classes-1-seed-1", "log"))
        process = self.experiment("out")
        text = process.stdout.read()
        self.assertEqual(process.wait(harness.WAIT_S), 1, text)
        self.assertIn("failed      fedavg-classes-1-seed-1 with exit code 73", text)
        self.assertIn("failed      alone-classes-1-seed-1 with exit code 73", text)
        self.assertIn("2 of 9 cells failed", text)
        self.assertRegex(text, r"\(1 of 9, about .* left\)")
        self.assertIn("(7 of 9)", text)
        self.assertTrue(os.path.exists(self.path("out", "cells", "both-iid-seed-2", "result.json")))

    def test_splits_are_tried_before_anything_runs(self):
        harness.make_images(self.path("photos", "north"), 24, seed="north")
        self.write(FILE.replace('[iid, "classes:1"]', '["classes:1", "classes:5"]'))
        process = self.experiment("out")
        text = process.stdout.read()
        self.assertEqual(process.wait(harness.WAIT_S), 65, text)
        self.assertIn("note        split classes:1, seed 2: 20 of 60 images are of classes that no site holds", text)
        self.assertIn("split classes:5 among 2 clients: 5 classes for each client, but there are only 3", text)
        self.assertNotIn("running", text)

    def test_files_that_say_nothing_or_the_wrong_thing_are_refused(self):
        for old, new, code, part in (
            ("rounds: 4", "ruonds: 4", 78, 'tiny.yaml:8:11: unknown key "ruonds"; did you mean "rounds"?'),
            ("place: one", "place: two", 78, "is none of sites, alone, one"),
            ("both: {map: true}", "both: 3", 78, "a method is a map"),
            ("both: {map: true}", '"b/th": {map: true}', 78, "a method's name"),
            ("seeds: [1, 2]", "seeds: [1, two]", 78, "seeds: a list"),
            ("seeds: [1, 2]", "", 78, "at least one of each"),
            ("[iid, \"classes:1\"]", "[idd]", 78, "tiny.yaml:6"),
            ("bn_groups: 1", "bn_groups: 3", 78, "method fedavg: bn_groups"),
            ("images: photos", "images: nowhere", 65, "nowhere"),
            ("validation_per_class: 4", "validation_per_class: 24", 65, "class east has 24 images"),
            ("fedavg: {seeds: 1,", "fedavg.seeds: 1\n  plain: {", 78, '"fedavg.seeds": a method is a map'),
            ("both: {map: true}", "other.seeds: 1", 78, '"other.seeds": a method is a map'),
            ("rounds: 4", "rounds: 4\n  seed: 3", 78, "the experiment itself decides seed"),
            ("both: {map: true}", "both: {min_clients: 1}", 78, "the experiment itself decides min_clients"),
            ("seeds: [1, 2]", "seeds: [1, 1]", 78, "seed 1 is given twice"),
            ("seeds: [1, 2]", "seeds: [99999999999999999999999]", 78, "seeds: a list"),
            ("[iid, \"classes:1\"]", "[iid, \"classes:5\"]", 65, "split classes:5 among 2 clients: 5 classes for each"),
            ("[iid, \"classes:1\"]", "[iid, iid]", 78, "split iid is given twice"),
            ("local_steps: 1", "local_steps: 900000", 78, "local_steps: 1800000"),
            ("fedavg: {", "both: {", 78, 'key "methods.both" is given twice'),
        ):
            text = FILE.replace(old, new, 1)
            self.assertNotEqual(text, FILE, old)
            self.write(text)
            process = self.experiment("refused")
            output = process.stdout.read()
            self.assertEqual(process.wait(harness.WAIT_S), code, output)
            self.assertIn(part, output)
        # Two things to be judged by are one too many, and none is too few.
        for text, args, code, part in (
            (FILE, ("--test", "photos"), 64, "--test photos: tiny.yaml has validation_per_class"),
            (FILE.replace("validation_per_class: 4", ""), (), 78, "nothing to be judged by: give --test DIR"),
        ):
            self.write(text)
            process = self.experiment("refused", *args)
            output = process.stdout.read()
            self.assertEqual(process.wait(harness.WAIT_S), code, output)
            self.assertIn(part, output)


if __name__ == "__main__":
    unittest.main()
