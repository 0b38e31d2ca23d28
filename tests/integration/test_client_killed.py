"""Clients killed with -9 and started again: the run ends with the same bits, and nothing counts twice."""
import unittest

import harness

WIDE = {"model.width": 96, "rounds": 2, "min_clients": 2, "fusion.upload": 16}  # an update of more than two chunks
MIB = 1 << 20


class ClientKilled(harness.Federation):
    reproducible = True

    def hold_in_mid_upload(self, server, proxy):
        """Both sides stand in the middle of a's upload, and the server has taken its first chunk: what a connection
        still holds when it is reset is lost, so the proxy's word alone would not do."""
        self.assertTrue(proxy.holding.wait(harness.WAIT_S))
        taken = lambda status: any(c["name"] == "a" and c["bytes_up"] >= MIB for c in status["clients"])
        self.wait_for_status(server, taken)

    def test_in_mid_upload(self):
        server = self.server(plan=WIDE)
        proxy = self.proxy(server, hold_after=MIB + MIB // 2)
        other = self.client("b", server.address)
        client = self.client("a", proxy.address)
        self.hold_in_mid_upload(server, proxy)
        other.wait_for("accepted", round=1)  # it waits for the other one
        client.kill9()
        proxy.cut()
        server.wait_for("client_left", name="a")
        proxy.hold_after = None
        client = self.client("a", proxy.address)
        self.check_finished(server, [client, other], rounds=2, images=24)
        # What the first process trained is offered again, not trained again, and goes on at the byte: a whole chunk
        # had arrived.
        self.assertEqual(client.count("round_received", round=1), 1)
        self.assertEqual(client.count("round_trained", round=1), 0)
        update = len(self.model(server, 0))
        self.assertGreater(update, 2 * MIB)
        self.assertLess(proxy.sent[1], 2 * update - MIB + 65536)
        self.assertEqual(self.model(server, 2), self.undisturbed(WIDE, 2, ["a", "b"]))

    def test_a_lost_connection_is_made_again(self):
        """The network breaks, the processes live: the upload goes on, nothing is trained again."""
        server = self.server(plan=WIDE)
        proxy = self.proxy(server, hold_after=MIB + MIB // 2)
        other = self.client("b", server.address)
        client = self.client("a", proxy.address)
        self.hold_in_mid_upload(server, proxy)
        proxy.hold_after = None
        proxy.cut()
        self.check_finished(server, [client, other], rounds=2, images=24)
        self.assertEqual(client.count("offering", round=1), 2)
        self.assertEqual(client.count("round_trained", round=1, images=24), 1)
        update = len(self.model(server, 0))
        self.assertLess(proxy.sent[1], 2 * update - MIB + 65536)

    def test_at_each_step_of_a_round(self):
        names = ["a", "b", "c"]
        server = self.server()
        others = [self.client(name, server.address) for name in names[1:]]
        for round, event in enumerate(["round_received", "offering", "accepted", "round_ended"], start=1):
            client = self.client("a", server.address)
            client.wait_for(event, round=round)
            client.kill9()
        client = self.client("a", server.address)
        self.check_finished(server, [client, *others], rounds=4, images=24)
        self.assertEqual(self.model(server, 4), self.undisturbed({}, 4, names))

    def test_a_damaged_state_costs_work_and_not_the_run(self):
        server = self.server()
        others = [self.client(name, server.address) for name in ("b", "c")]
        client = self.client("a", server.address)
        client.wait_for("round_ended", round=1)
        client.kill9()
        for name in ("state", "pending", "instance"):
            try:
                with open(self.path("client-a", name), "r+b") as file:
                    file.seek(20)
                    file.write(b"damage")
            except FileNotFoundError:
                self.assertEqual(name, "pending")
        server.wait_for("client_left", name="a")
        client = self.client("a", server.address)
        client.wait_for("state_dropped")
        self.check_finished(server, [client, *others], rounds=4, images=24)


if __name__ == "__main__":
    unittest.main()
