"""A site's secret: with it nobody else makes the views of its images; it outlives the client, and nobody may read it."""
import os
import shutil
import stat
import unittest

import harness

NAMES = "abc"


class Views(harness.Federation):
    def run_through(self, label, secrets=None):
        """A run in folders of its own, with the secrets of another run's; the final model."""
        server = self.server(state="server-" + label)
        for name in NAMES if secrets else "":
            os.mkdir(self.path(f"{name}-{label}"), 0o700)
            shutil.copy2(self.path(f"{name}-{secrets}", "secret"), self.path(f"{name}-{label}"))
        clients = [self.client(name, server.address, state=f"{name}-{label}") for name in NAMES]
        self.check_finished(server, clients, rounds=4, images=24)
        self.assertEqual(server.stop(), 0)
        self.assertEqual([client.count("views_guessable") for client in clients], [self.reproducible] * 3)
        return self.model(server, 4)

    def secret(self, folder):
        with open(self.path(folder, "secret"), "rb") as file:
            return file.read()

    def secrets_decide(self):
        """Whether runs with the same plan, names and images have the same bits only where the secrets are the same."""
        return self.run_through("first") != self.run_through("second")

    def test_the_secret_is_in_the_bits(self):
        self.assertTrue(self.secrets_decide())
        self.assertEqual(self.run_through("third", secrets="first"), self.model_of("first"))
        secrets = {self.secret(f"{name}-{label}") for name in NAMES for label in ("first", "second")}
        self.assertEqual(len(secrets), 6)
        for name in NAMES:
            self.assertEqual(self.secret(f"{name}-third"), self.secret(f"{name}-first"))
            mode = os.stat(self.path(f"{name}-first", "secret")).st_mode
            self.assertEqual(stat.S_IMODE(mode), 0o600)
            self.assertNotIn(self.secret(f"{name}-first")[16:48], b"".join(self.files(f"{name}-first", but="secret")))

    def model_of(self, label):
        return harness.model_floats(self.path("server-" + label, "models", "round-000004.starling"))

    def files(self, folder, but):
        for place, _, names in os.walk(self.path(folder)):
            for name in names:
                if name != but:
                    with open(os.path.join(place, name), "rb") as file:
                        yield file.read()

    def test_without_a_secret_it_is_noticed(self):
        """The mistake: views that follow from plan and name alone. Asked for, it is a warning, and draws no secret."""
        self.reproducible = True
        self.assertFalse(self.secrets_decide())
        self.assertFalse(os.path.exists(self.path("a-first", "secret")))

    def test_a_restart_goes_on_with_it(self):
        """Killed at each step of a round, and the bits are those of an undisturbed run with the same secrets."""
        server = self.server(state="server-first")
        others = [self.client(name, server.address, state=f"{name}-first") for name in NAMES[1:]]
        for round, event in enumerate(["round_received", "offering", "accepted", "round_ended"], start=1):
            client = self.client("a", server.address, state="a-first")
            client.wait_for(event, round=round)
            client.kill9()
        client = self.client("a", server.address, state="a-first")
        self.check_finished(server, [client, *others], rounds=4, images=24)
        self.assertEqual(self.run_through("undisturbed", secrets="first"), self.model_of("first"))

    def test_damaged_lost_and_read_by_others(self):
        server = self.server(plan={"rounds": 6, "min_clients": 2})
        other = self.client("b", server.address)

        def start_until(round):
            client = self.client("a", server.address)
            client.wait_for("accepted", round=round)
            client.kill9()
            return client

        start_until(1)
        first = self.secret("client-a")
        with open(self.path("client-a", "secret"), "r+b") as file:
            file.seek(20)
            file.write(b"damage")
        client = start_until(2)
        self.assertEqual(client.count("state_dropped"), 1)
        second = self.secret("client-a")
        os.remove(self.path("client-a", "secret"))
        self.assertEqual(start_until(3).count("state_dropped"), 0)
        third = self.secret("client-a")
        self.assertEqual(len({first, second, third}), 3)
        os.chmod(self.path("client-a", "secret"), 0o640)
        client = self.client("a", server.address)
        self.assertEqual(client.exit_code(), 78)
        said = next(event["reason"] for event in client.events if event["event"] == "failed")
        self.assertRegex(said, r"client-a/secret: others may use it .mode 640.*; chmod 600 ")
        os.chmod(self.path("client-a", "secret"), 0o600)
        client = self.client("a", server.address)
        server.wait_for("done")
        self.assertEqual([client.exit_code(), other.exit_code()], [0, 0])
        self.assertEqual(self.secret("client-a"), third)
        self.assertEqual(self.history(server), [(round, 2, 48) for round in range(1, 7)])


if __name__ == "__main__":
    unittest.main()
