"""More connections than open files: further ones are told that there is no room, nobody who is there loses anything, and the
server never meets the limit itself."""
import glob
import os
import shutil
import subprocess
import unittest

import harness

FILES = 64
REJECT, FULL = 3, 7


def said(stream):
    """The type of the first frame, and its protobuf; (None, b"") when the connection is closed without one."""
    data = b""
    try:
        while True:
            more = stream.recv(4096)
            if not more:
                break
            data += more
    except OSError:
        pass
    return (data[5], data[16:]) if len(data) >= 16 else (None, b"")


@unittest.skipUnless(shutil.which("prlimit"), "needs prlimit")
class Load(harness.Federation):
    def test_beyond_the_limit_on_open_files(self):
        server = self.server(plan={"min_clients": 2, "rounds": 3}, under=("prlimit", f"--nofile={FILES}:{FILES}"), idle_timeout="120s")
        at = server.wait_for("capacity", level="warn")
        room = int(server.events[at - 1]["connections"])
        clients = int(server.events[at - 1]["clients"])
        self.assertGreater(clients, 4)
        self.assertLess(room, FILES)
        first = self.client("a", server.address)
        server.wait_for("client_joined", name="a")

        crowd = [harness.connect(server.address) for _ in range(FILES)]
        server.wait_for("connection_refused")
        self.assertLess(len(os.listdir(f"/proc/{server.pid}/fd")), FILES)
        refused = closed = 0
        for stream in crowd[clients:]:
            stream.settimeout(harness.WAIT_S)
            kind, text = said(stream)
            self.assertIn(kind, (REJECT, None))
            refused += kind == REJECT and text[:2] == bytes([8, FULL])
            closed += kind is None
        self.assertGreaterEqual(refused, 4)  # out of the reserve
        self.assertEqual(server.count("connections_full"), 0)
        self.assertEqual(server.count("accept_failed"), 0)

        for stream in crowd:
            stream.close()
        second = self.client("b", server.address)
        for client in (first, second):
            self.assertEqual(client.exit_code(), 0)
        self.assertEqual(self.status(server)["round"], 3)
        self.assertEqual(server.count("client_left", name="a"), 1)

    def test_a_limit_below_min_clients_is_an_error(self):
        state = self.path("never")
        args = ["prlimit", "--nofile=52:52", os.path.join(harness.BIN, "starling-server"), "--listen", "127.0.0.1:0"]
        args += ["--state", state, "--set", "plan.min_clients=20", "--set", "max_clients=30"]
        done = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=harness.WAIT_S)
        self.assertEqual(done.returncode, 78, done.stderr)
        self.assertIn("open files", done.stderr)
        self.assertEqual(glob.glob(os.path.join(state, "checkpoint-*")), [])


if __name__ == "__main__":
    unittest.main()
