"""The server killed with -9 in each state of a round and started again: it comes back at its round, the clients come back
by themselves, and the final model has the bits of an undisturbed run. The server's optimiser has a state, which must come
back too.

A save is caught in the middle by a FIFO in the place of the temporary file that is about to be written: opening it for
writing blocks until somebody reads, for as long as the test wants."""
import os
import unittest

import harness

NAMES = ["a", "b", "c"]
PLAN = {"rounds": 7, "aggregation.optimizer": "adam", "aggregation.learning_rate": 0.01}


class ServerKilled(harness.Federation):
    reproducible = True

    def test_in_each_state(self):
        server = self.server(plan=PLAN)
        address = server.address

        def restart(round):
            nonlocal server
            server.kill9()
            server = self.server(listen=address, plan=PLAN)
            server.wait_for("run_resumed", round=round)

        # WAITING: two of three clients are there.
        clients = [self.client(name, address) for name in NAMES[:2]]
        for name in NAMES[:2]:
            server.wait_for("client_joined", name=name)
        restart(0)
        clients.append(self.client(NAMES[2], address))
        # OPEN: nothing has come yet.
        server.wait_for("round_opened", round=1)
        restart(0)
        # OPEN: one contribution is accepted, which promises nothing.
        server.wait_for("round_durable", round=1)
        server.wait_for("contribution_accepted", round=2)
        restart(1)
        # AGGREGATING, or what follows it at once.
        server.wait_for("round_closed", round=3)
        server.kill9()
        durable = 3 if os.path.exists(os.path.join(server.state, "checkpoint-000003")) else 2
        server = self.server(listen=address, plan=PLAN)
        server.wait_for("run_resumed", round=durable)
        # SAVING: the model is not written, and then: the model is, the checkpoint is not.
        for round, name, written in (
            (4, "models/round-000004.starling.tmp", "checkpoint-000003"),
            (5, "checkpoint-000005.tmp", "models/round-000005.starling"),
        ):
            server.wait_for("round_opened", round=round)
            os.mkfifo(os.path.join(server.state, name))
            server.wait_for("round_closed", round=round)
            self.wait_until_saving(server, written)
            server.kill9()
            os.remove(os.path.join(server.state, name))
            self.assertFalse(os.path.exists(os.path.join(server.state, f"checkpoint-{round:06}")))
            server = self.server(listen=address, plan=PLAN)
            server.wait_for("run_resumed", round=round - 1)
        # Durable, and hardly announced.
        server.wait_for("round_durable", round=6)
        restart(6)
        # DONE: some clients may not have heard of it.
        server.wait_for("done")
        server.kill9()
        server = self.server(listen=address, plan=PLAN)
        server.wait_for("run_resumed", round=7)
        for client in clients:
            self.assertEqual(client.exit_code(), 0, client.label)
        self.assertEqual(self.history(server), [(r, 3, 3 * 24) for r in range(1, 8)])
        disturbed = self.model(server, 7)
        self.assertEqual(server.stop(), 0)

        server = self.server(state="undisturbed", plan=PLAN)
        clients = [self.client(name, server.address, state="undisturbed-" + name) for name in NAMES]
        self.check_finished(server, clients, rounds=7, images=24)
        self.assertEqual(disturbed, self.model(server, 7))

    def wait_until_saving(self, server, written):
        """Until the server says so itself, and the file that comes before the blocked one is there."""
        while self.status(server)["state"] != "SAVING" or not os.path.exists(os.path.join(server.state, written)):
            self.assertIsNone(server.process.poll())

    def test_the_newest_checkpoint_is_damaged(self):
        server = self.server()
        clients = [self.client(name, server.address) for name in NAMES]
        server.wait_for("round_durable", round=2)
        server.kill9()
        newest = max(name for name in os.listdir(server.state) if name.startswith("checkpoint-"))
        with open(os.path.join(server.state, newest), "r+b") as file:
            file.seek(100)
            file.write(b"damage")
        server = self.server(listen=server.address)
        server.wait_for("checkpoint_skipped", round=int(newest[-6:]))
        server.wait_for("run_resumed", round=int(newest[-6:]) - 1)
        self.check_finished(server, clients, rounds=4, images=24)


if __name__ == "__main__":
    unittest.main()
