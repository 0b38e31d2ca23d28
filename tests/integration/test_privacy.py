"""Features are personal data: noise before they leave, counted before they leave; a site that keeps its own; features that
wait for contributors, and are forgotten."""
import math
import os
import struct
import unittest

import harness

D, ROWS = 16, 16  # of TINY_PLAN
NOISY = {
    "fusion.encoder": "aggregated",
    "fusion.privacy.noise": 4,
    "update.privacy.clip": 0.02,
    "update.privacy.noise": 5,
}


def bank(server, round):
    """Rows of the checkpoint's feature bank: owner, round, numbers. The byte table stands in server/bank/bank_codec.c."""
    with open(os.path.join(server.state, f"checkpoint-{round:06}"), "rb") as file:
        data = file.read()
    at = data.index(b"SBNK")
    d, owners, rows = struct.unpack_from("<III", data, at + 8)
    at += 24
    names = []
    for i in range(owners):
        name, count = struct.unpack_from("<64sI", data, at + 72 * i)
        names += [name.rstrip(b"\0").decode()] * count
    at += 72 * owners
    rounds = struct.unpack_from(f"<{rows}I", data, at)
    numbers = struct.unpack_from(f"<{rows * d}f", data, at + 4 * rows)
    return [(names[i], rounds[i], numbers[i * d : i * d + d]) for i in range(rows)]


def exact_epsilon(sigma, releases, delta):
    """Of the Gaussian mechanism with this noise in units of the sensitivity (Balle and Wang 2018): a lower bound."""
    z = sigma / math.sqrt(releases)
    phi = lambda x: math.erfc(-x / math.sqrt(2)) / 2
    low, high = 0.0, 100.0
    for _ in range(100):
        middle = (low + high) / 2
        spent = phi(1 / (2 * z) - middle * z) - math.exp(middle) * phi(-1 / (2 * z) - middle * z)
        low, high = (middle, high) if spent > delta else (low, middle)
    return high


class Privacy(harness.Federation):
    def run_through(self, label, plan, names="abc"):
        server = self.server(state="server-" + label, plan=plan)
        clients = [self.client(name, server.address, state=f"{name}-{label}") for name in names]
        self.check_finished(server, clients, rounds=plan.get("rounds", 4), images=24)
        return server, clients

    def check_figures(self, privacy, releases):
        self.assertEqual(privacy["releases"], releases)
        for part, sigma in (("features", 4 / 2), ("update", 5 / 2)):
            least = exact_epsilon(sigma, releases, 1e-5)
            self.assertEqual(privacy[part]["delta"], 1e-5)
            self.assertGreaterEqual(privacy[part]["epsilon"], least)
            self.assertLess(privacy[part]["epsilon"], 1.2 * least)

    def test_noise_leaves_and_its_cost_is_told(self):
        self.reproducible = True  # the same images in both runs
        clean, _ = self.run_through("clean", {"rounds": 1, "fusion.encoder": "aggregated"})
        server, clients = self.run_through("noisy", {"rounds": 1, **NOISY})
        rows, clean_rows = bank(server, 1), bank(clean, 1)
        self.assertEqual([row[:2] for row in rows], [row[:2] for row in clean_rows])
        self.assertEqual(len(rows), 3 * ROWS)
        cosines = []
        for (_, _, noisy), (_, _, plain) in zip(rows, clean_rows):
            self.assertAlmostEqual(math.hypot(*noisy), 1, places=5)
            cosines.append(sum(a * b for a, b in zip(noisy, plain)))
        # Nearly all of it is noise: the row's share of a noisy row has the length 1 / sqrt(1 + 16 * 4 * 4).
        self.assertLess(abs(sum(cosines) / len(cosines)), 0.35)
        self.assertGreater(min(sum(a * a for a in row[2]) for row in clean_rows), 0.99)
        self.assertNotEqual(self.model(server, 1), self.model(clean, 1))
        status = self.status(server)
        for client in status["clients"]:
            self.check_figures(client["privacy"], 1)
            self.assertIsNone(client["own"])  # what has no noise does not leave either
        self.assertEqual(status["history"][0]["loss"], 0)
        self.assertIsNone(self.status(clean)["clients"][0]["privacy"])
        self.assertGreater(self.status(clean)["history"][0]["loss"], 0)
        text = self.run_to_end("starling", "status", "--server", server.address).stdout
        self.assertRegex(text, r"\n  privacy of a: 1 releases; features: epsilon [0-9.]+ at delta 1e-05; updates: ")
        for client in clients:
            (said,) = [event for event in client.events if event.get("event") == "privacy"]
            self.assertEqual(said["releases"], "1")
            self.assertGreater(float(said["update_length"]), 0)
        self.assertFalse(os.path.exists(self.path("a-clean", "spent")))

    def test_the_count_outlives_the_client(self):
        """Killed before its offer, after it, and after it counted: each contribution that was made is counted once."""
        server = self.server(plan=NOISY)
        others = [self.client(name, server.address) for name in "bc"]
        made = 0
        for round, event in enumerate(["round_received", "offering", "accepted"], start=1):
            client = self.client("a", server.address)
            client.wait_for(event, round=round)
            client.kill9()
            made += client.count("privacy")
        client = self.client("a", server.address)
        self.check_finished(server, [client, *others], rounds=4, images=24)
        made += client.count("privacy")
        # A contribution that was kept and offered again was not made again; one that died before it was kept may have been
        # counted or not, and has not left.
        self.assertIn(made, (4, 5))
        with open(self.path("client-a", "spent"), "rb") as file:
            (kept,) = struct.unpack_from("<I", file.read(), 12)
        self.assertIn(kept, range(4, made + 1))
        status = {each["name"]: each for each in self.status(server)["clients"]}
        self.check_figures(status["a"]["privacy"], kept)
        self.check_figures(status["b"]["privacy"], 4)

    def test_what_is_offered_again_is_the_same(self):
        """The server dies with a's contribution in its hands; nobody draws noise a second time."""
        plan = {**NOISY, "rounds": 2}
        server = self.server(plan=plan)
        proxy = self.proxy(server, hold_after=4096)  # c gets no further, so the round stays open
        clients = [self.client(name, address) for name, address in zip("abc", [server.address] * 2 + [proxy.address])]
        self.assertTrue(proxy.holding.wait(harness.WAIT_S))
        clients[0].wait_for("accepted", round=1)
        clients[2].kill9()
        with open(self.path("client-a", "pending"), "rb") as file:
            pending = file.read()
        server.kill9()
        clients[0].wait_for("connection_lost")
        server = self.server(listen=server.address, plan=plan)
        clients[2] = self.client("c", server.address)
        self.check_finished(server, clients, rounds=2, images=24)
        self.assertEqual(clients[0].count("offering", round=1), 2)
        self.assertEqual(clients[0].count("privacy"), 2)
        rows = [numbers for name, round, numbers in bank(server, 2) if (name, round) == ("a", 1)]
        self.assertEqual(len(rows), ROWS)
        self.assertIn(b"".join(struct.pack(f"<{D}f", *row) for row in rows), pending)

    def test_a_site_that_keeps_its_features(self):
        server = self.server()
        clients = [self.client(name, server.address) for name in "ab"]
        clients.append(self.client("c", server.address, flags=["--no-share"]))
        self.check_finished(server, clients, rounds=4, images=24)
        self.assertEqual({row[0] for row in bank(server, 4)}, {"a", "b"})
        for name, client in zip("abc", clients):
            remote = [event["remote"] for event in client.events if event.get("event") == "round_received"]
            self.assertEqual(remote, ["0"] * 4 if name == "c" else ["0", "8", "16", "24"])
            shares = {each["name"]: each for each in self.status(server)["clients"]}[name]
            self.assertEqual(shares["shares_features"], name != "c")
            self.assertEqual(shares["bytes_by_kind"]["features"] > 0, name != "c")
            self.assertEqual(shares["bytes_by_kind"]["remote"] > 0, name != "c")
        for event in clients[2].events:
            if event.get("event") == "training_finished":
                self.assertEqual(float(event["remote_share"]), 0)
                self.assertEqual(event["features"], "0")

    def test_who_comes_later_gives_first(self):
        """c is in round 2 or 3 first, when the others get features; it gets some when it has given some."""
        server = self.server(plan={"rounds": 6, "min_clients": 2})
        clients = [self.client(name, server.address) for name in "ab"]
        server.wait_for("round_opened", round=2)
        clients.append(self.client("c", server.address))
        server.wait_for("done")
        for client, name in zip(clients, "abc"):
            self.assertEqual(client.exit_code(), 0, client.label)
            heard = [event for event in client.events if event.get("event") == "round_received"]
            self.assertEqual(heard[0]["remote"], "0", name)
            for event in heard[1:]:
                self.assertGreater(int(event["remote"]), 0, name)

    def test_features_wait_for_contributors(self):
        server, clients = self.run_through("held", {"fusion.min_contributors": 3})
        for client in clients:
            self.assertEqual(client.count("round_received", remote="0"), 4)
        server, clients = self.run_through("given", {"fusion.min_contributors": 2})
        for client in clients:
            self.assertEqual(client.count("round_received", remote="0"), 1)

    def test_features_are_forgotten(self):
        server, _ = self.run_through("ttl", {"fusion.ttl": 2})
        self.assertEqual({row[1] for row in bank(server, 4)}, {3, 4})
        server, _ = self.run_through("all", {})
        self.assertEqual({row[1] for row in bank(server, 4)}, {1, 2, 3, 4})


if __name__ == "__main__":
    unittest.main()
