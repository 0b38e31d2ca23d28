"""tests/load/load.py, all rows at small sizes: that each measures, checks, and writes what README.md links to. Its figures
mean nothing here; a swarm that finds a wrong model, or a contribution that was not counted, fails it all the same."""
import json
import os
import subprocess
import sys
import unittest

import harness

LOAD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "load", "load.py")
ROWS = ["wire", "tls", "null-2", "null-16", "null-256", "memory", "idle", "tls-idle", "flood", "thousand", "strangers", "soak",
        "aggregate", "curves"]  # fmt: skip


class Figures(harness.Federation):
    def load(self, *args, build=os.path.dirname(os.path.abspath(harness.BIN))):
        command = [sys.executable, "-B", LOAD, "--build", build, "--quick"]
        command += ["--out", self.path("out"), "--memory", self.folder, "--disk", self.folder, *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=harness.WAIT_S * 4)

    def results(self):
        with open(self.path("out", "results.json"), encoding="utf-8") as file:
            return json.load(file)["rows"]

    def text(self, name):
        with open(self.path("out", name), encoding="utf-8") as file:
            return file.read()

    def test_every_row(self):
        done = self.load()
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = self.results()
        self.assertEqual(list(rows), ROWS)
        checks = {name: [check["what"] for check in row["checks"]] for name, row in rows.items()}
        self.assertEqual([len(checks[name]) for name in ROWS], [1, 1, 2, 2, 2, 1, 2, 2, 1, 2, 2, 1, 1, 0])
        for name, row in rows.items():
            for check in row["checks"]:
                least = check["sense"] == "least"
                good = check["value"] >= check["required"] if least else check["value"] <= check["required"]
                self.assertEqual(check["ok"], good, f"{name}: {check['what']}")
        figures = {name: row["figures"] for name, row in rows.items()}
        wire = figures["wire"]
        self.assertEqual([len(wire[key]) for key in ("seconds", "peer_seconds", "ratios")], [2, 2, 2])
        self.assertGreater(wire["bytes_down"], wire["model_bytes"])
        self.assertEqual(wire["bytes_up"], wire["model_bytes"] + 16 * 8 * 4)
        for name in ("null-2", "null-16", "null-256"):
            self.assertGreater(min(figures[name][key] for key in ("memory_ms", "disk_ms", "save_ms")), 0, name)
        self.assertGreater(figures["null-2"]["file_bytes"][0], figures["null-2"]["model_bytes"])
        self.assertEqual(len(figures["memory"]["hwm_bytes"]), 3)
        self.assertGreaterEqual(figures["idle"]["heartbeats"], 50)
        self.assertTrue(rows["thousand"]["checks"][0]["ok"])  # exact on any machine, however slow
        for _, (_, _, _, strangers) in figures["strangers"]["turns"]:
            self.assertGreater(strangers["broken"] + strangers["rejected"] + strangers["refused"], 0)  # they were there
        self.assertGreater(figures["soak"]["samples"], 1)
        for points in (*figures["curves"]["by_clients"].values(), figures["curves"]["by_size"]):
            self.assertTrue(all(point["seconds"] > 0 and point["hwm_bytes"] > 1e6 for point in points))
        table = self.text("table.md")
        self.assertTrue(all(f"| {name} |" in table for name in ROWS))
        self.assertIn("</svg>", self.text("curves.svg"))
        self.assertEqual([name for name in os.listdir(self.folder) if name.startswith("starling-load-")], [])

        # What is there is not measured again, unless it is named.
        before = rows["soak"]
        self.assertEqual(self.load().stdout, "")
        self.assertEqual(self.results()["soak"], before)
        self.assertIn("soak", self.load("soak").stdout)
        self.assertNotEqual(self.results()["soak"], before)

    def test_what_was_not_counted_or_compared_gives_no_figure(self):
        os.makedirs(self.path("build", "bin"))
        programs = os.path.abspath(harness.BIN)
        os.symlink(os.path.join(programs, "starling-server"), self.path("build", "bin", "starling-server"))
        for bug in ('s/"models_compared":31/"models_compared":30/', 's/"accepted":3/"accepted":2/', 's/"declined":0/"declined":1/'):
            with open(self.path("build", "bin", "starling"), "w", encoding="utf-8") as file:
                file.write(f"#!/bin/sh\n'{programs}/starling' \"$@\" | sed '{bug}'\n")
            os.chmod(self.path("build", "bin", "starling"), 0o755)
            done = self.load("soak", build=self.path("build"))
            self.assertEqual(done.returncode, 1, bug)
            self.assertIn("not every contribution was counted, or not every model compared", done.stderr)
            self.assertFalse(os.path.exists(self.path("out", "results.json")))
        self.assertEqual([name for name in os.listdir(self.folder) if name.startswith("starling-load-")], [])

    def test_what_is_refused(self):
        done = self.load("sock")
        self.assertEqual(done.returncode, 2)
        self.assertIn("no row sock", done.stderr)


if __name__ == "__main__":
    unittest.main()
