"""Updates and features in f16 and int8: fewer bytes, the same bits whatever happens, what was left out is not lost."""
import os
import unittest

import harness

NAMES = ["a", "b", "c"]
# Wide enough for the scales to weigh little.
INT8 = {"model.width": 32, "wire.update": "int8", "wire.features": "int8"}


class Wire(harness.Federation):
    reproducible = True

    def run_through(self, label, plan, order=NAMES):
        server = self.server(state="server-" + label, plan=plan)
        clients = [self.client(name, server.address, state=f"{name}-{label}") for name in order]
        self.check_finished(server, clients, rounds=4, images=24)
        status = {client["name"]: client for client in self.status(server)["clients"]}
        model = self.model(server, 4)
        self.assertEqual(server.stop(), 0)
        return model, status["a"]["bytes_up"], status["a"]["bytes_down"]

    def test_fewer_bytes(self):
        runs = {
            form: self.run_through(form, {**INT8, "wire.update": form, "wire.features": form})
            for form in ("f32", "f16", "int8")
        }
        up = {form: run[1] / runs["f32"][1] for form, run in runs.items()}
        self.assertAlmostEqual(up["f16"], 0.5, delta=0.01)
        self.assertAlmostEqual(up["int8"], 0.25, delta=0.02)
        self.assertLess(runs["int8"][2], runs["f32"][2])  # the model comes in f32, the features of others do not
        self.assertEqual(len({run[0] for run in runs.values()}), 3)

    def test_kills_and_order_leave_no_trace(self):
        undisturbed = self.run_through("undisturbed", INT8)[0]
        self.assertEqual(self.run_through("other-order", INT8, ["c", "a", "b"])[0], undisturbed)
        server = self.server(plan=INT8)
        others = [self.client(name, server.address) for name in NAMES[1:]]
        for round, event in enumerate(["round_received", "offering", "accepted", "round_ended"], start=1):
            client = self.client("a", server.address)
            client.wait_for(event, round=round)
            client.kill9()
        client = self.client("a", server.address)
        self.check_finished(server, [client, *others], rounds=4, images=24)
        self.assertEqual(self.model(server, 4), undisturbed)


if __name__ == "__main__":
    unittest.main()
