"""A run from the first round to the last, undisturbed."""
import os
import unittest

import harness


class Run(harness.Federation):
    def test_three_clients_to_the_end(self):
        server = self.server()
        with open(os.path.join(server.state, "address")) as file:
            self.assertEqual(file.read().strip(), server.address)
        names = ["a", "b", "c"]
        clients = [self.client(name, server.address) for name in names]
        self.check_finished(server, clients, rounds=4, images=24)
        for round in range(1, 5):
            self.assertEqual(server.count("round_durable", round=round), 1)
        status = self.status(server)
        self.assertEqual((status["round"], status["rounds"]), (4, 4))
        self.assertEqual(sorted(client["name"] for client in status["clients"]), names)
        # A round of one step of 8 images makes 8 keys, fewer than the 16 of the plan; none is offered twice.
        self.assertEqual(status["bank"]["rows"], 3 * 8 * 4)
        self.assertNotEqual(self.model(server, 0), self.model(server, 4))
        self.assertEqual(server.stop(), 0)
        self.assertFalse(os.path.exists(os.path.join(server.state, "address")))

    def test_the_model_depends_on_nothing_but_plan_and_images(self):
        """Other processes, other ports, clients in another order: the same bits, where sites have no secrets."""
        self.reproducible = True
        models = []
        for run, order in enumerate((["a", "b", "c"], ["c", "a", "b"])):
            server = self.server(state=f"server{run}")
            clients = [self.client(name, server.address, state=f"{name}{run}") for name in order]
            self.check_finished(server, clients, rounds=4, images=24)
            models.append(self.model(server, 4))
            self.assertEqual(server.stop(), 0)
        self.assertEqual(models[0], models[1])

    def test_a_late_joiner_gets_the_next_round(self):
        server = self.server(plan={"min_clients": 2, "rounds": 6})
        clients = [self.client(name, server.address) for name in ("a", "b")]
        server.wait_for("round_durable", round=1)
        clients.append(self.client("late", server.address))
        server.wait_for("done")
        for client in clients:
            self.assertEqual(client.exit_code(), 0)
        accepted = [row[1] for row in self.history(server)]
        self.assertEqual(len(accepted), 6)
        self.assertEqual(accepted[0], 2)
        self.assertLessEqual(set(accepted), {2, 3})

    def test_a_client_that_is_asked_to_stop_says_goodbye(self):
        server = self.server(plan={"min_clients": 2})
        client = self.client("a", server.address)
        server.wait_for("client_joined", name="a")
        self.assertEqual(client.stop(), 0)
        server.wait_for("client_left", name="a")
        self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    unittest.main()
