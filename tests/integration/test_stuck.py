"""A learning rate that is far too high: every update is out of range, and would be so again. The run says that it is stuck,
and why, and nobody trains the same round over and over."""
import unittest

import harness

TOO_HIGH = {"rounds": 2, "min_clients": 2, "round_deadline": "5s", "local_steps": 8, "learning_rate": 10, "sgd_momentum": 0.99}


class Stuck(harness.Federation):
    def test_it_is_told_and_not_repeated(self):
        server = self.server(plan=TOO_HIGH, idle_timeout="3s")
        clients = [self.client(name, server.address) for name in ("a", "b")]
        for client in clients:
            client.wait_for("declined", code="range")
        at = server.wait_for("round_stuck")
        self.assertIn("learning rate", server.events[at - 1]["waits_for"])
        extended = server.wait_for("round_extended", at)
        server.wait_for("round_extended", extended)
        server.wait_for("still_waiting", at, state="STUCK")
        status = self.status(server)
        self.assertEqual(status["state"], "STUCK")
        self.assertIn("2 refused", status["waits_for"])
        self.assertGreater(status["waited_ms"], 5000)
        self.assertEqual([client.count("round_trained") for client in clients], [1, 1])
        self.assertEqual(server.count("round_stuck"), 1)

        # Started again, a client gets another chance (it may have been repaired).
        clients[0].stop()
        again = self.client("a", server.address)
        again.wait_for("declined", code="range")
        self.assertEqual(again.count("round_trained"), 1)
        self.assertEqual(self.status(server)["state"], "STUCK")


if __name__ == "__main__":
    unittest.main()
