"""Clients whose state folder is a copy: put back from some rounds ago, or in use on two machines at once."""
import shutil
import unittest

import harness


class OldState(harness.Federation):
    def test_a_folder_put_back_from_earlier_rounds(self):
        """It holds a contribution to a round that is long over, an old queue and velocity, and what was counted then."""
        plan = {"rounds": 6}
        server = self.server(plan=plan)
        others = [self.client(name, server.address) for name in ("b", "c")]
        client = self.client("a", server.address)
        client.wait_for("offering", round=2)
        client.kill9()
        shutil.copytree(self.path("client-a"), self.path("copy"))
        for round in (3, 5):
            client = self.client("a", server.address)
            client.wait_for("accepted", round=round)
            client.kill9()
            shutil.rmtree(self.path("client-a"))
            shutil.copytree(self.path("copy"), self.path("client-a"))
        client = self.client("a", server.address)
        at = client.wait_for("started", round=1, pending=2)
        client.wait_for("dropped", at, round=2)
        self.check_finished(server, [client, *others], rounds=6, images=24)
        self.assertEqual(client.count("offering", round=2), 0)

    def test_two_machines_with_copies_of_one_folder(self):
        """They throw each other out; the server says which two, and the run goes on when one of them is gone."""
        server = self.server(idle_timeout="2s")
        first = self.client("a", server.address)
        first.wait_for("welcomed")
        first.kill9()  # A folder is copied at rest, as a running client may replace a file meanwhile.
        shutil.copytree(self.path("client-a"), self.path("copy"))
        clients = [self.client(name, server.address) for name in ("a", "b")]
        clients[0].wait_for("welcomed")
        twin = self.client("a", server.address, images=self.images("a"), state="copy")
        at = server.wait_for("state_shared", name="a")
        said = server.events[at - 1]
        self.assertNotEqual(said["first"], said["second"])
        twin.stop()
        clients.append(self.client("c", server.address))
        self.check_finished(server, clients, rounds=4, images=24)


if __name__ == "__main__":
    unittest.main()
