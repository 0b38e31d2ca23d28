"""Processes that stand still past the idle time-out (SIGSTOP, a paused machine) and go on."""
import signal
import unittest

import harness


class Stall(harness.Federation):
    def test_a_client_that_stood_still_goes_on(self):
        server = self.server(idle_timeout="1s")
        clients = [self.client(name, server.address) for name in ("a", "b", "c")]
        # In the middle of its work...
        at = clients[0].wait_for("round_received", round=2)
        clients[0].signal(signal.SIGSTOP)
        server.wait_for("client_left", name="a")
        clients[0].signal(signal.SIGCONT)
        clients[0].wait_for("connected", after=at)
        # ...and while it waits for the others.
        at = clients[1].wait_for("accepted", round=3)
        clients[1].signal(signal.SIGSTOP)
        server.wait_for("client_left", name="b")
        clients[1].signal(signal.SIGCONT)
        self.check_finished(server, clients, rounds=4, images=24)
        self.assertEqual(clients[0].count("round_trained", round=2, images=24), 1)

    def test_a_server_that_stood_still_goes_on(self):
        server = self.server(idle_timeout="1s")
        clients = [self.client(name, server.address) for name in ("a", "b", "c")]
        server.wait_for("round_opened", round=2)
        server.signal(signal.SIGSTOP)
        for client in clients:
            client.wait_for("connection_lost")
        server.signal(signal.SIGCONT)
        self.check_finished(server, clients, rounds=4, images=24)

    def test_a_slow_deadline_does_not_wait_for_ever(self):
        """One of three stands still for the rest of the run; two are enough, and the deadline closes the round."""
        # The one that will stand still is there first, since two could be done before it has come; and rounds take a while.
        plan = {"min_clients": 2, "rounds": 3, "round_deadline": "3s", "local_steps": 50}
        server = self.server(plan=plan, idle_timeout="2s")
        clients = [self.client("c", server.address)]
        server.wait_for("client_joined", name="c")
        clients += [self.client(name, server.address) for name in ("a", "b")]
        server.wait_for("client_joined", name="b")
        clients[0].signal(signal.SIGSTOP)
        server.wait_for("done")
        clients[0].signal(signal.SIGCONT)
        for client in clients:
            self.assertEqual(client.exit_code(), 0)
        self.assertEqual([row[0] for row in self.history(server)], [1, 2, 3])


if __name__ == "__main__":
    unittest.main()
