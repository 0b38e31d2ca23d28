"""The systemd units: systemd finds nothing wrong with them, they give away little, they do not start again what waiting
cannot mend, and a federation runs under their system call filters, with TLS, set up as deploy/OPERATING.md says. Each check
is shown a unit that it must not pass.

systemd-analyze is in Debian's package systemd; a machine without it fails here."""
import os
import re
import subprocess
import sys
import unittest

import harness
import sandbox

HERE = os.path.dirname(os.path.abspath(__file__))
DEPLOY = os.path.join(HERE, "..", "..", "deploy")
SERVER, CLIENT = "starling-server.service", "starling-client@.service"
NOBODY = 65534


def read(name):
    with open(os.path.join(DEPLOY, name), encoding="utf-8") as file:
        return file.read()


def analyze(*args):
    return subprocess.run(["systemd-analyze", *args], capture_output=True, text=True, timeout=harness.WAIT_S)


class Units(harness.Federation):
    def unit(self, name, change=lambda text: text):
        """A copy that names the programs of this build, changed."""
        text = read(name).replace("ExecStart=", f"ExecStart={os.path.abspath(harness.BIN)}/")
        changed = change(text)
        os.makedirs(self.path("units"), exist_ok=True)
        with open(self.path("units", name), "w", encoding="utf-8") as file:
            file.write(changed)
        return self.path("units", name)

    def complaints(self, unit):
        done = analyze("verify", "--recursive-errors=no", unit)
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "starling" in line]
        return lines or ([] if done.returncode == 0 else ["systemd-analyze verify failed without a word"])

    def test_systemd_finds_nothing_wrong(self):
        for name in (SERVER, CLIENT):
            self.assertEqual(self.complaints(self.unit(name)), [])
            for old, new in (("StateDir", "StateDirr"), ("/bin/starling-", "/bin/no-starling-"), ("Restart=on", "Restart=of")):
                planted = self.unit(name, lambda text, old=old, new=new: text.replace(old, new))
                self.assertNotEqual(self.complaints(planted), [], new)

    def test_exposure(self):
        def is_under_two(unit):
            return analyze("security", "--offline=true", "--threshold=19", unit).returncode == 0

        for name in (SERVER, CLIENT):
            self.assertTrue(is_under_two(self.unit(name)), name)
            planted = self.unit(name, lambda text: re.sub(r"(?m)^Capability.*|^SystemCallF.*", "", text))
            self.assertFalse(is_under_two(planted), name)

    def test_restarts(self):
        """A unit starts again after just the exit codes of which EVENTS.md says that it helps."""
        rows = re.findall(r"^\| (\d+) \|.*\| (yes|no) \|$", read("EVENTS.md").split("## Exit codes")[1], re.M)
        helpless = {code for code, again in rows if again == "no"} - {"0"}
        self.assertTrue({"64", "78"} <= helpless and "69" not in helpless, rows)
        for name in (SERVER, CLIENT):
            settings = dict(sandbox.settings(os.path.join(DEPLOY, name)))
            self.assertEqual((settings["Restart"], settings["Type"]), ("on-failure", "exec"))
            self.assertEqual(set(settings["RestartPreventExitStatus"].split()), helpless)
            # Longer than the goodbyes of the default idle_timeout, 60 s / 6.
            self.assertGreaterEqual(int(settings["TimeoutStopSec"].removesuffix("s")), 30)

    def confined(self, daemon_args, unit):
        return [sys.executable, "-B", os.path.join(HERE, "sandbox.py"), unit, *daemon_args]

    def run_confined(self, label, unit, *args):
        # The leak checker of a build with AddressSanitizer needs ptrace, which no daemon may.
        options = os.environ.get("ASAN_OPTIONS", "")
        self.addCleanup(os.environ.__setitem__, "ASAN_OPTIONS", options)
        os.environ["ASAN_OPTIONS"] = options + ":detect_leaks=0"
        program = os.path.join(os.path.abspath(harness.BIN), "starling-" + label)
        daemon = harness.Daemon(label, self.confined([program, *args, "--log-format", "json"], unit))
        os.environ["ASAN_OPTIONS"] = options
        self.daemons.append(daemon)
        return daemon

    def start_server(self, unit, state="server"):
        plan = []
        for key, value in {**harness.TINY_PLAN, "min_clients": 1}.items():
            plan += ["--set", f"plan.{key}={value}"]
        words = ["--listen", "127.0.0.1:0", "--state", self.path(state), "--trust", self.path(state, "trust"), *plan]
        return self.run_confined("server", unit, *words)

    def start_client(self, unit, name):
        """It finds the server by its identity."""
        state = self.path("client-" + name)
        self.say("starling", "join", self.token("server", name), "--out", os.path.join(state, "identity"))
        return self.run_confined("client", unit, "--name", name, "--images", self.images(name), "--state", state)

    def say(self, *words):
        done = self.run_to_end(*words)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.strip()

    def authority(self, state):
        self.say("starling", "ca", "init", self.path(state, "trust"), "--address", "127.0.0.1:7640")

    def address(self, server, state):
        """Where the server listens, in the authority's folder too."""
        address = server.events[server.wait_for("listening") - 1]["address"]
        with open(self.path(state, "trust", "address"), "w", encoding="utf-8") as file:
            file.write(address + "\n")
        return address

    def token(self, state, name):
        return self.say("starling", "ca", "token", "--trust", self.path(state, "trust"), "--name", name)

    def test_a_federation_under_their_filters(self):
        self.authority("server")
        server = self.start_server(self.unit(SERVER))
        self.address(server, "server")
        # Planted: kernels cannot be made where memory is never writable and executable.
        planted = self.unit(CLIENT, lambda text: text.replace("[Install]", "MemoryDenyWriteExecute=yes\n[Install]"))
        lost = self.start_client(planted, "lost")
        self.assertIn("oneDNN", lost.events[lost.wait_for("work_failed") - 1]["reason"])
        self.assertEqual(lost.exit_code(), 1)
        client = self.start_client(self.unit(CLIENT), "site")
        server.wait_for("round_durable", round=harness.TINY_PLAN["rounds"])
        self.assertEqual(client.exit_code(), 0)
        self.assertEqual(server.stop(), 0)
        # Planted: a call that the server cannot do without.
        planted = self.unit(SERVER, lambda text: text.replace("SystemCallFilter=~", "SystemCallFilter=~flock "))
        self.authority("other")
        self.assertEqual(self.start_server(planted, "other").exit_code(), 74)

    def test_root_beside_a_server_of_another_user(self):
        """What root does with `starling ca` in the state folder of a DynamicUser= remains the server's to read."""
        under = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        if subprocess.run([*under, os.path.join(harness.BIN, "starling-server"), "--version"], check=False).returncode:
            self.skipTest("needs root, and a build that every user may run")
        os.chmod(self.folder, 0o711)
        os.mkdir(self.path("server"), 0o700)
        os.chown(self.path("server"), NOBODY, NOBODY)
        self.authority("server")
        server = self.start_server_as(under)
        address = self.address(server, "server")
        client = self.client("site", address, flags=["--join", self.token("server", "site")])
        server.wait_for("client_joined", name="site")
        for name in self.files("server", "trust"):
            self.assertEqual((os.stat(name).st_uid, os.stat(name).st_mode & 0o077), (NOBODY, 0), name)
        self.say("starling", "ca", "revoke", "site", "--trust", self.path("server", "trust"))
        self.assertEqual(client.exit_code(), 77)
        self.assertEqual(server.count("trust_unreadable"), 0)
        # Planted: a file that remains root's.
        os.chown(self.path("server", "trust", "revoked"), 0, 0)
        server.wait_for("trust_unreadable")
        self.assertEqual(server.stop(), 0)

    def start_server_as(self, under):
        return super().start_server(under=under, plan={"min_clients": 2}, trust=self.path("server", "trust"))

    def files(self, *parts):
        return [os.path.join(at, name) for at, _, names in os.walk(self.path(*parts)) for name in names]


if __name__ == "__main__":
    unittest.main()
