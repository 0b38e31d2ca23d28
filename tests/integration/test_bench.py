"""`starling bench`: the names of its JSON are a contract, its numbers are of this machine, and bad flags are usage errors."""
import json
import os
import unittest

import harness

NET = ["--width", "16", "--blocks", "1,1", "--input", "16", "--queue", "32", "--steps", "2"]
STEP = [*NET, "--batch", "8"]


class Bench(harness.Federation):
    def measured(self, *args):
        done = self.run_to_end("starling", "bench", *args)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout.splitlines()[-1])

    def refused(self, code, *args):
        done = self.run_to_end("starling", "bench", *args)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertEqual(done.stdout, "")
        return done.stderr

    def test_a_step(self):
        direct = self.measured("step", *STEP, "--threads", "1", "--winograd", "off")
        for key in ("images_per_second", "gflops", "peak_rss_bytes", "images_per_cpu_second"):
            self.assertGreater(direct[key], 0, key)
        for key in ("sgemm_gflops", "fraction_of_peak"):
            self.assertIn(key, direct)
        self.assertIn("Winograd in 0 of", direct["kernels"])
        # Another backend and another number of threads compute the same thing.
        other = self.measured("step", *STEP, "--threads", "2", "--bn-groups", "1", "--backend", "openblas")
        again = self.measured("step", *STEP, "--threads", "1", "--backend", "openblas")
        self.assertIn("openblas", other["kernels"])
        self.assertAlmostEqual(other["loss"], direct["loss"], places=4)
        self.assertEqual(other["loss"], again["loss"])

    def test_groups_divide_the_batch_by_themselves(self):
        self.assertEqual(self.measured("step", *NET, "--batch", "9", "--threads", "2")["bn_groups"], 1)

    def test_input(self):
        found = self.measured("input", "--images", self.images("a"), "--size", "16")
        self.assertEqual(found["images"], 24)
        self.assertGreater(found["from_cache"], 0)
        self.assertGreater(found["from_files"], 0)

    def test_wire(self):
        found = self.measured("wire", "--seconds", "1")
        for key in ("encode", "decode", "loopback"):
            self.assertGreater(found[key + "_bytes_per_second"], 0, key)

    def test_aggregate(self):
        found = self.measured("aggregate", "--width", "8", "--seconds", "1")
        for key in ("updates", "bytes", "hash_bytes", "add_bytes", "memcpy_bytes"):
            self.assertGreater(found[key + "_per_second"], 0, key)
        self.assertAlmostEqual(found["updates_per_second"] * found["update_bytes"] / found["bytes_per_second"], 1)
        hashed, added, copied = (found[key + "_bytes_per_second"] for key in ("hash", "add", "memcpy"))
        self.assertAlmostEqual(found["fraction_of_memcpy"] * copied / added, 1)  # the hash apart
        self.assertAlmostEqual(found["bytes_per_second"] * (1 / hashed + 1 / added), 1)
        self.assertIn(found["kernel"], ("portable", "avx2", "avx512"))

    def test_what_is_refused(self):
        self.assertIn("--blocks", self.refused(64, "step", "--blocks", "1,x"))
        self.assertIn("openblas", self.refused(64, "step", "--backend", "mkl"))
        self.assertIn("must divide", self.refused(64, "step", *STEP, "--bn-groups", "3"))
        self.assertIn("compute.precision", self.refused(64, "step", *STEP, "--dtype", "bf16", "--backend", "openblas"))
        self.assertIn("GB", self.refused(1, "step", "--width", "512", "--batch", "65536", "--input", "224"))
        self.assertIn("bench what", self.refused(64))
        self.assertIn("nowhere", self.refused(65, "input", "--images", self.path("nowhere")))
        os.makedirs(self.path("empty"))
        self.assertIn("empty", self.refused(65, "input", "--images", self.path("empty")))


if __name__ == "__main__":
    unittest.main()
