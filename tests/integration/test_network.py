"""What networks do to a running federation, between real processes: they are lost for longer than any time-out, and they
delay, cut, double and damage what they carry. Every round closes, counts each contribution once, and the final model has
the bits of an undisturbed run."""
import collections
import random
import struct
import threading
import unittest
from unittest import mock

import harness
from proxy import CUT

NAMES = ["a", "b", "c"]
CHUNK = 7
MIB = 1 << 20
FAULTS = 20  # for each client
KINDS = ["delay", "pause_within", "cut", "double", "damage"]
WIDE = {"model.width": 96, "rounds": 5, "min_clients": 2}  # models and updates of more than two chunks


class Weather:
    """Does something to one frame in six, `faults` times in all, and then clears up. Some of the first blobs are forged,
    in each direction no more than are asked for again."""

    def __init__(self, seed, faults):
        self.draw = random.Random(seed)
        self.left = faults
        self.forged = collections.Counter()
        self.seen = collections.Counter()
        self.lock = threading.Lock()

    def __call__(self, frame):
        with self.lock:
            kind = None
            if self.left > 0 and frame.kind == CHUNK and self.forged[frame.up] < 2 and self.draw.randrange(2):
                kind = "forge"
                self.forged[frame.up] += 1
            elif self.left > 0 and self.draw.randrange(6) == 0:
                kind = self.draw.choice(KINDS)
            if not kind:
                return [frame.data]
            self.left -= 1
            self.seen[kind] += 1
            return getattr(self, kind)(frame)

    def delay(self, frame):
        return [self.draw.uniform(0.1, 1.0), frame.data]

    def pause_within(self, frame):
        at = self.draw.randrange(1, len(frame.data))
        return [frame.data[:at], self.draw.uniform(0.1, 1.0), frame.data[at:]]

    def cut(self, frame):
        return [frame.data[: self.draw.randrange(len(frame.data))], CUT]

    def double(self, frame):
        return [frame.data, frame.data]

    def damage(self, frame):
        """One bit, anywhere."""
        data = bytearray(frame.data)
        data[self.draw.randrange(len(data))] ^= 1 << self.draw.randrange(8)
        return [bytes(data)]

    def forge(self, frame):
        """One bit of a blob, with a checksum that holds: the blob's own hash must find it."""
        data = bytearray(frame.data)
        data[-1 - self.draw.randrange(16)] ^= 1 << self.draw.randrange(8)
        head = bytes(data[:12])
        data[12:16] = struct.pack("<I", harness.crc32c(head + bytes(data[16:])))
        return [bytes(data)]


class Network(harness.Federation):
    reproducible = True

    def lose(self, server, client, proxy):
        """The network is gone until both sides have noticed by themselves and the client has tried again in vain."""
        gone, lost = len(server.events), len(client.events)
        proxy.dark()
        server.wait_for("client_left", gone, name="a")
        lost = client.wait_for("connection_lost", lost)
        client.wait_for("connection_lost", lost, attempt=2)
        proxy.hold_after = proxy.hold_down_after = None
        back = len(client.events)
        proxy.light()
        client.wait_for("welcomed", back)

    def test_lost_in_each_state_of_a_client(self):
        server = self.server(plan=WIDE, idle_timeout="2s")
        proxy = self.proxy(server, hold_down_after=MIB + MIB // 2)
        other = self.client("b", server.address)
        client = self.client("a", proxy.address)
        # Downloading.
        client.wait_for("round_received", round=1)
        self.assertTrue(proxy.holding.wait(harness.WAIT_S))
        self.lose(server, client, proxy)
        # Training, or about to: the model has come.
        model = len(self.model(server, 0))
        server.wait_for("round_durable", round=1)
        before = proxy.received[-1]
        self.wait_for_status(server, lambda status: proxy.received[-1] - before >= model or status["round"] > 1)
        self.lose(server, client, proxy)
        # It has offered, and waits for an answer or for the end of the round.
        for round, event in ((3, "offering"), (4, "accepted")):
            client.wait_for(event, round=round)
            self.lose(server, client, proxy)
        # Uploading.
        server.wait_for("round_durable", round=4)
        proxy.holding.clear()
        proxy.hold_after = proxy.sent[-1] + MIB + MIB // 2
        self.assertTrue(proxy.holding.wait(harness.WAIT_S))
        self.lose(server, client, proxy)
        self.check_finished(server, [client, other], rounds=5, images=24)
        for round in range(1, 6):
            self.assertLessEqual(client.count("round_trained", round=round, images=24), 1)
        self.assertEqual(self.model(server, 5), self.undisturbed(WIDE, 5, ["a", "b"]))

    def test_it_is_the_time_out_that_notices(self):
        """Planted: an idle_timeout that never comes. The wait is then as silent as it must not be."""
        server = self.server(plan={"min_clients": 2}, idle_timeout="1h")
        proxy = self.proxy(server)
        self.client("b", server.address)
        client = self.client("a", proxy.address)
        client.wait_for("round_received", round=1)
        with mock.patch.object(harness, "WAIT_S", 8.0), self.assertRaisesRegex(AssertionError, "client_left"):
            self.lose(server, client, proxy)

    def test_slow_links_get_more_upload_slots(self):
        """Sites whose own links are slow: two slots at first, more when those have been measured. Together they could
        send several times as fast, so that the number stays up."""
        plan = {**WIDE, "rounds": 1, "min_clients": 6, "round_deadline": "20m"}
        server = self.server(plan=plan, idle_timeout="12s", upload_slots=4)
        names = ["a", "b", "c", "d", "e", "f"]
        clients = [self.client(name, self.proxy(server, rate=MIB / 2).address) for name in names]
        at = server.wait_for("upload_slots", slots=4, most=4)
        self.assertGreater(int(server.events[at - 1]["bytes_per_second"]), MIB / 4)
        self.check_finished(server, clients, rounds=1, images=24)

    def run_through(self, faults, seed, damaged_site=None):
        """A run of three sites, each behind weather of its own; the final model, and what was done to the frames."""
        state = f"server-{seed}"
        server = self.server(state=state, idle_timeout="2s")
        weathers = [Weather(f"{seed} {name}", faults) for name in NAMES]
        clients = []
        for name, weather in zip(NAMES, weathers):
            images = self.images("other") if name == damaged_site else self.images(name)
            proxy = self.proxy(server, script=weather)
            clients.append(self.client(name, proxy.address, images=images, state=f"{state}-{name}"))
        self.check_finished(server, clients, rounds=4, images=24)
        model = self.model(server, 4)
        self.assertEqual(server.stop(), 0)
        return model, sum((weather.seen for weather in weathers), collections.Counter()), [server, *clients]

    def test_delayed_cut_doubled_and_damaged(self):
        calm, _, _ = self.run_through(0, "calm")
        total, events = collections.Counter(), collections.Counter()
        for seed in (1, 2):
            model, seen, daemons = self.run_through(FAULTS, seed)
            self.assertEqual(model, calm, f"seed {seed}")
            total += seen
            for daemon in daemons:
                events.update(event.get("event") for event in daemon.events)
        print(f"met {dict(total)}", end=" ")
        for kind in [*KINDS, "forge"]:
            self.assertGreater(total[kind], 3, kind)
        for event in ("client_left", "connection_lost", "protocol_error", "upload_damaged", "damaged"):
            self.assertGreater(events[event], 0, event)

    def test_what_came_through_would_be_noticed(self):
        """Planted: a site whose images are others than they should be, so that its every update is wrong."""
        calm, _, _ = self.run_through(0, "calm")
        other, _, _ = self.run_through(0, "wrong", damaged_site="b")
        self.assertNotEqual(other, calm)


if __name__ == "__main__":
    unittest.main()
