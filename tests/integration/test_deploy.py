"""What deploy/ says about the programs is what they do: the sample configurations are the built-in defaults, and the list
of events has all of them."""
import glob
import os
import re
import unittest

import harness

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def read(*parts):
    with open(os.path.join(ROOT, *parts), encoding="utf-8") as file:
        return file.read()


class Deploy(harness.Federation):
    def test_samples_are_the_defaults(self):
        # A client cannot start without images, and says so; the sample leaves them for its user to fill in.
        for program, sample, must_set in (("starling-server", "server.yaml", []), ("starling-client", "client.yaml", ["--images", "x"])):
            with self.subTest(sample):
                path = os.path.join(ROOT, "deploy", sample)
                checked = self.run_to_end(program, "--config", path, "--check-config", *must_set)
                self.assertEqual(checked.returncode, 0, checked.stderr)
                defaults = self.run_to_end(program, "--print-config")
                self.assertEqual(defaults.returncode, 0, defaults.stderr)
                self.assertEqual(self.run_to_end(program, "--config", path, "--print-config").stdout, defaults.stdout)
                # Comments, bounds and order too: the file is what --print-config writes, below a heading.
                heading, _, rest = read("deploy", sample).partition("\n\n")
                self.assertTrue(all(line.startswith("#") for line in heading.splitlines()), heading)
                self.assertEqual(rest, defaults.stdout)

    def test_every_event_is_explained(self):
        text = read("deploy", "EVENTS.md")
        sections = dict(zip(("server", "client"), re.split(r"^## .*$", text, flags=re.M)[1:]))
        for side, section in sections.items():
            explained = set(re.findall(r"^\| `(\w+)` \|", section, re.M))
            logged = set()
            files = glob.glob(os.path.join(ROOT, side, "**", "*.c"), recursive=True)
            if side == "server":  # whose log alone is bounded
                files.append(os.path.join(ROOT, "common", "base", "log.c"))
            for path in files:
                # The log may be a call with words of its own.
                for event in re.findall(r"\blog_event\((?:[^,\"()]|\((?:[^()]|\([^()]*\))*\))+,[^,\"]+,([^,]+),", read(path)):
                    logged.update(re.findall(r'"([^"]*)"', event))
            self.assertGreater(len(logged), 20)  # else the pattern misses them
            self.assertTrue(all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in logged), sorted(logged))
            self.assertEqual(logged - explained, set(), f"{side}: logged, not explained")
            self.assertEqual(explained - logged, set(), f"{side}: explained, not logged")

    def test_what_is_wrong_has_a_remedy(self):
        rows = re.findall(r"^\| `(\w+)` \| ([\w, ]+) \| .* \| (.*) \|$", read("deploy", "EVENTS.md"), re.M)
        serious = [row for row in rows if re.search("warn|error", row[1])]
        self.assertGreater(len(serious), 30)
        self.assertEqual([row for row in serious if row[2] == "-"], [])

    def test_every_exit_code_is_explained(self):
        codes = {code for code in re.findall(r"X\(\w+, (\d+), ", read("common", "base", "err.h"))}
        section = read("deploy", "EVENTS.md").split("## Exit codes")[1]
        self.assertEqual(set(re.findall(r"^\| (\d+) \|", section, re.M)), codes | {"0"})


if __name__ == "__main__":
    unittest.main()
