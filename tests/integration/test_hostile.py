"""Strangers at the door while a run goes on: whatever they send, they are shown out within the time-outs, the server
neither grows nor keeps a file descriptor for them, and every round closes."""
import os
import socket
import struct
import unittest

import harness
from harness import field, frame, hello, varint

RANDOM = bytes((i * 167 + 13) & 0xFF for i in range(4096))

# What a stranger sends, and whether it then closes its side.
STRANGERS = {
    "nothing, then the end": (b"", True),
    "random bytes": (RANDOM, False),
    "a TLS client hello": (bytes.fromhex("16030100c8010000c40303") + RANDOM[:200], False),
    "an HTTP request": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", False),
    "an SSH banner": (b"SSH-2.0-OpenSSH_9.2\r\n", True),
    "a giant length": (struct.pack("<IBBHII", 0xFFFFFFFF, 1, 1, 0, 0xFFFFFFFF, 0), False),
    "a length just above the limit": (struct.pack("<IBBHII", 1 << 20, 1, 1, 0, 1 << 20, 0), False),
    "another major version": (hello()[:4] + b"\x09" + hello()[5:], False),
    "a type that does not exist": (frame(31), False),
    "type zero": (frame(0), False),
    "a message that only the server sends": (frame(2, b"\x08\x01"), False),
    "a chunk before anything else": (frame(7, field(1, 3) + field(2, 1) + field(3, 0), b"x" * 1000), False),
    "a wrong checksum": (frame(1, hello()[16:], crc=1), False),
    "more protobuf than payload": (frame(1, b"\x08\x01", proto_length=99), False),
    "raw bytes where none may be": (frame(1, hello()[16:], b"raw", proto_length=len(hello()) - 16), False),
    "a protobuf cut short": (frame(1, hello()[16:-5]), False),
    "a HELLO without its required fields": (frame(1, b""), False),
    "a name that is none": (hello(name=b"../../etc/passwd"), False),
    "a name with control characters": (hello(name=b"a\x1b[2Jb"), False),
    "a name that is too long": (hello(name=b"n" * 65), False),
    "an instance of the wrong length": (hello(instance=b"short"), False),
    "a role that does not exist": (hello(role=77), False),
    "versions the wrong way round": (hello(minor=(9, 3)), False),
    "versions of the future": (hello(minor=(7, 9)), False),
    "a bomb of unknown fields": (hello(more=b"\x98\x06\x00" * 20000), False),
    "half a frame, then the end": (hello()[:30], True),
    "half a header, then the end": (hello()[:7], True),
    "half a frame, then nothing": (hello()[:30], False),
    "a HELLO, then nothing": (hello(name=b"mute"), False),
    "a HELLO, then a second one": (hello(name=b"twice") + hello(name=b"twice"), False),
    "a HELLO, then an offer out of the blue": (hello(name=b"eager") + frame(10, field(1, 1)), False),
    "a HELLO, then READY with another layout": (
        hello(name=b"other") + frame(4, field(1, b"L" * 16) + field(2, 10)),
        False,
    ),
    "a question for the status with nonsense behind it": (
        hello(name=None, role=3) + frame(17, field(1, 5)) + RANDOM,
        False,
    ),
    "an enormous varint": (frame(1, b"\x08" + b"\xff" * 100), False),
    "deep nesting": (frame(1, field(9, field(9, field(9, varint(1) * 50)))), False),
}


def descriptors(daemon):
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


def peak_rss(daemon):
    with open(f"/proc/{daemon.pid}/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


class Hostile(harness.Federation):
    def shown_out(self, address, sends, closes):
        """Sends, and reads until the server closes. The answer."""
        answer = b""
        with harness.connect(address) as stream:
            try:
                stream.sendall(sends)
                if closes:
                    stream.shutdown(socket.SHUT_WR)
                while True:
                    more = stream.recv(65536)
                    if not more:
                        break
                    answer += more
            except (ConnectionResetError, BrokenPipeError):
                pass
        return answer

    def test_strangers_while_a_run_goes_on(self):
        server = self.server(plan={"rounds": 3}, idle_timeout="3s")
        clients = [self.client(name, server.address) for name in ("a", "b")]
        for name in ("a", "b"):
            server.wait_for("client_joined", name=name)
        before, rss = descriptors(server), peak_rss(server)
        for what, (sends, closes) in STRANGERS.items():
            with self.subTest(what):
                self.shown_out(server.address, sends, closes)
                self.assertIsNone(server.process.poll(), "the server is gone")
        clients.append(self.client("c", server.address))
        self.check_finished(server, clients, rounds=3, images=24)
        self.assertLess(peak_rss(server) - rss, 48 << 20)
        self.assertLessEqual(descriptors(server), before)
        self.assertEqual(server.stop(), 0)

    def test_many_at_once_that_say_nothing(self):
        """More than there is room for; they take no member's place, and those who belong here get in within a tenth of the
        minute after which the silent are shown out."""
        server = self.server(plan={"rounds": 2}, idle_timeout="6m", max_clients=8)
        crowd = [harness.connect(server.address) for _ in range(120)]
        clients = [self.client(name, server.address) for name in ("a", "b", "c")]
        self.check_finished(server, clients, rounds=2, images=24)
        for stream in crowd:
            stream.close()

    def cost(self, server, greeting, frames, last):
        """Seconds of the server's processor for what a stranger sends without reading; `last` ends the connection."""

        def used():
            with open(f"/proc/{server.pid}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        before = used()
        self.shown_out(server.address, greeting + frames + last, False)
        return used() - before

    def test_questions_cost_no_more_than_heartbeats(self):
        server = self.server(idle_timeout="60s")
        again = hello(name=b"again")
        beats = self.cost(server, hello(), frame(8, field(1, 0) + field(2, 0) + field(3, 0)) * 200000, again)
        questions = self.cost(server, hello(name=None, role=3), frame(17, field(1, 1)) * 200000, again)
        self.assertLess(questions, 3 * beats + 0.2)
        self.assertEqual(self.status(server)["state"], "WAITING")

    def test_foreign_protocols_are_named(self):
        server = self.server()
        answer = self.shown_out(server.address, STRANGERS["an HTTP request"][0], False)
        self.assertTrue(answer.startswith(b"HTTP/1.1 4"), answer[:100])
        answer = self.shown_out(server.address, STRANGERS["versions of the future"][0], False)
        self.assertEqual(answer[5], 3)  # REJECT
        self.assertIn(b"1.7", answer)
        self.assertIn(b"1.1", answer)


if __name__ == "__main__":
    unittest.main()
