"""A daemon killed with -9 at any of its calls: before every call that changes a file of its state folder, one run for
each, and before writes to its sockets. It is started again, and the run ends as if nothing had been: each round closed
once, each contribution counted once, the final model bit for bit that of an undisturbed run.

die_at counts the calls and kills. Threads make their order differ a little between runs, so a run may only say that its
daemon died at some call; the walk ends with the first number that no run has.

    test_death.py          a few numbers of each walk
    test_death.py --all    every one, and 200 drawn ones for each daemon's sockets"""
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
import unittest

import harness

DIE_AT = os.environ.get("STARLING_DIE_AT", os.path.join(harness.BIN, "..", "tests", "die_at"))
NAMES = ["a", "b", "c"]
ROUNDS = 3
PLAN = {"rounds": ROUNDS, "aggregation.optimizer": "adam", "aggregation.learning_rate": 0.01}
FEW, FEW_SENDS, DRAWN = 5, 2, 200
WALK_MAX = 2000  # calls; far above what a run makes
ALL = "--all" in sys.argv


class Death(harness.Federation):
    reproducible = True
    calls = {}
    undisturbed = None  # the final model

    def setUp(self):
        super().setUp()
        if subprocess.run([DIE_AT, "0", "files", "/", "/bin/true"], stderr=subprocess.DEVNULL).returncode == 71:
            self.fail("programs cannot be traced here, as LeakSanitizer must too; in a container: --cap-add SYS_PTRACE")

    def run_with_death(self, victim, kind, number, damage=None):
        """One run whose victim ("server" or a client) dies at that call; `damage` is done to its folder then. Returns
        what it died at, or None, and how many calls it made."""
        state = f"{victim}-{kind}-{number}"
        fatal = lambda folder: [DIE_AT, str(number), kind, self.path(folder)]
        server = self.start_server(state=state, plan=PLAN, under=fatal(state) if victim == "server" else ())
        first = server
        if not server.reached("listening"):
            server = self.server(state=state, plan=PLAN)
        server.address = address = next(event["address"] for event in server.events if event["event"] == "listening")
        again = {"state": state, "plan": PLAN, "listen": address}
        clients = {}
        for name in NAMES:
            folder = f"{state}-{name}"
            clients[name] = self.client(name, address, state=folder, under=fatal(folder) if name == victim else ())
        if victim == "server":
            if not server.reached("done"):
                if damage:
                    damage(self.path(state))
                server = self.server(**again)
                at = server.wait_for("coordinator_started")
                if server.events[at - 1]["round"] != str(ROUNDS):  # else it is done already, and says no more
                    server.wait_for("done")
            server.stop()  # which writes too, so it may die here; some clients may not have heard that the run is done
            server = self.server(**again)
            server.wait_for("run_resumed", round=ROUNDS)
        else:
            first = clients[victim]
            if first.exit_code() != 0:
                if damage:
                    damage(self.path(f"{state}-{victim}"))
                clients[victim] = self.client(victim, address, state=f"{state}-{victim}")
        for client in clients.values():
            self.assertEqual(client.exit_code(), 0, f"{client.label}, {state}")
        first.exit_code()
        self.assertEqual(self.history(server), [(r, len(NAMES), 24 * len(NAMES)) for r in range(1, ROUNDS + 1)], state)
        self.assertEqual(self.status(server)["state"], "DONE")
        final = self.model(server, ROUNDS)
        self.assertEqual(server.stop(), 0, state)
        for daemon in self.daemons:
            daemon.end()
        said = {event["event"]: event for event in first.events}
        self.daemons.clear()
        for folder in [state, *(f"{state}-{name}" for name in NAMES)]:
            shutil.rmtree(self.path(folder))
        died, counted = said.get("died_at"), said.get("calls_counted")
        self.assertTrue((died is None) != (counted is None), said)
        self.assertTrue(died is None or first.process.returncode == -9)
        if number == 0:
            Death.undisturbed = final
        self.assertEqual(final, Death.undisturbed, state)
        return (died["what"], number) if died else (None, int(counted["count"]))

    def calls_of(self, victim, kind):
        """How many there are when nothing dies."""
        if (victim, kind) not in Death.calls:
            died, count = self.run_with_death(victim, kind, 0)
            self.assertIsNone(died)
            self.assertGreater(count, FEW)
            Death.calls[victim, kind] = count
        return Death.calls[victim, kind]

    def walk(self, victim, kind):
        count = self.calls_of(victim, kind)
        if kind == "sends" and ALL:
            draw = random.Random(victim)
            numbers = [draw.randint(1, count) for _ in range(DRAWN)]
        elif ALL:
            numbers = range(1, WALK_MAX)
        else:
            few = FEW if kind == "files" else FEW_SENDS
            numbers = [1 + i * (count - 1) // few for i in range(few)]
        started, deaths, what = time.monotonic(), 0, {}
        for number in numbers:
            died, _ = self.run_with_death(victim, kind, number)
            if died:
                deaths += 1
                call = died.split()[0]
                what[call] = what.get(call, 0) + 1
            elif number > count and ALL:
                break
        seconds = time.monotonic() - started
        print(f"{victim}, {kind}: undisturbed {count} calls; died {deaths} times {what}; {seconds:.0f} s", file=sys.stderr)
        if ALL and kind == "files":
            self.assertLess(deaths, WALK_MAX - 1)
            self.assertGreater(deaths, count // 2)
        else:
            self.assertGreater(deaths, 0)

    def test_the_server_at_its_files(self):
        self.walk("server", "files")

    def test_the_server_at_its_sockets(self):
        self.walk("server", "sends")

    def test_a_client_at_its_files(self):
        self.walk("a", "files")

    def test_a_client_at_its_sockets(self):
        self.walk("a", "sends")

    def test_what_is_lost_with_a_death_is_noticed(self):
        """Planted: a client whose own state is gone, and a server that has lost a row of its history."""

        def forget_state(folder):
            os.remove(os.path.join(folder, "state"))
            if os.path.exists(os.path.join(folder, "pending")):
                os.remove(os.path.join(folder, "pending"))

        def forget_round(folder):
            with sqlite3.connect(os.path.join(folder, "history.db")) as base:
                self.assertEqual(base.execute("DELETE FROM round WHERE round = 1").rowcount, 1)
            base.close()

        for victim, damage in (("a", forget_state), ("server", forget_round)):
            late = self.calls_of(victim, "files") * 3 // 4
            with self.assertRaisesRegex(AssertionError, f"{victim}-files-{late}"):
                self.run_with_death(victim, "files", late, damage)


if __name__ == "__main__":
    unittest.main(argv=[word for word in sys.argv if word != "--all"])
