"""starling ca: what the verb says and leaves behind, judged by openssl and by looking into every file of the folder."""
import base64
import json
import os
import stat
import subprocess
import unittest

import harness

ADDRESS = "coordinator.example:7640"


class Ca(harness.Federation):
    def ca(self, *args, code=0):
        done = self.run_to_end("starling", "ca", *args)
        self.assertEqual(done.returncode, code, done.stderr)
        return done

    def make(self):
        trust = self.path("trust")
        done = self.ca("init", trust, "--address", ADDRESS)
        self.assertEqual(done.stdout, "")
        return trust

    def token(self, trust, name, *args):
        done = self.ca("token", "--name", name, "--trust", trust, *args)
        self.assertEqual(done.stdout.count("\n"), 1)  # a line, and nothing else
        self.assertNotIn(done.stdout.strip(), done.stderr)
        self.assertRegex(done.stderr, "starling(-client --join| join) TOKEN")
        return done.stdout.strip()

    def list(self, trust):
        return json.loads(self.ca("list", "--trust", trust, "--json").stdout.splitlines()[-1])

    def openssl(self, *args):
        return subprocess.run(["openssl", *args], capture_output=True, text=True, timeout=60)

    def test_the_authority_is_what_openssl_calls_one(self):
        trust = self.make()
        ca = os.path.join(trust, "ca.pem")
        self.assertEqual(stat.S_IMODE(os.stat(trust).st_mode), 0o700)
        self.assertEqual(stat.S_IMODE(os.stat(os.path.join(trust, "ca.key")).st_mode), 0o600)
        verified = self.openssl("verify", "-x509_strict", "-check_ss_sig", "-CAfile", ca, ca)
        self.assertEqual(verified.returncode, 0, verified.stderr)
        text = self.openssl("x509", "-in", ca, "-noout", "-text").stdout
        for part in ("CA:TRUE, pathlen:0", "Certificate Sign", "prime256v1", "ecdsa-with-SHA256"):
            self.assertIn(part, text)
        pin = self.openssl("pkey", "-in", os.path.join(trust, "ca.key"), "-pubout", "-outform", "DER", "-out", self.path("pin"))
        self.assertEqual(pin.returncode, 0, pin.stderr)
        digest = self.openssl("dgst", "-sha256", "-binary", "-hex", self.path("pin")).stdout.split()[-1]
        self.assertIn(f"Starling CA {digest[:8]}", text)
        token = self.bytes_of(self.token(trust, "site-a"))
        self.assertEqual(token[-68:-36].hex(), digest)

    def bytes_of(self, token):
        head, text = token.split(":", 1)
        self.assertEqual(head, "starling1")
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

    def files_with(self, trust, traces):
        files = [os.path.join(folder, name) for folder, _, names in os.walk(trust) for name in names]
        self.assertGreaterEqual(len(files), 9)
        found = []
        for path in files:
            with open(path, "rb") as file:
                text = file.read() + path.encode()
            found += [path] if any(trace in text for trace in traces) else []
        return found

    def test_no_file_has_a_token(self):
        trust = self.make()
        tokens = [self.token(trust, f"site-{i}") for i in range(3)]
        secrets = [self.bytes_of(token)[-36:-4] for token in tokens]
        self.assertEqual(len(set(secrets)), 3)
        traces = [trace for token, secret in zip(tokens, secrets) for trace in
                  (token[10:].encode(), secret, secret.hex().encode(), base64.b64encode(secret)[:40],
                   base64.urlsafe_b64encode(secret)[:40])]
        self.assertEqual(self.files_with(trust, traces), [])
        planted = os.path.join(trust, "tokens", "planted")
        with open(planted, "wb") as file:
            file.write(b"secret: " + traces[2])
        self.assertEqual(self.files_with(trust, traces), [planted])
        os.remove(planted)
        listed = self.ca("list", "--trust", trust).stdout + self.ca("list", "--trust", trust, "--json").stdout
        for trace in traces:
            self.assertNotIn(trace, listed.encode())

    def test_tokens_and_revocations_are_listed(self):
        trust = self.make()
        self.token(trust, "site-b")
        self.token(trust, "site-a", "--role", "observer", "--valid", "7d")
        self.token(trust, "site-c", "--role", "operator", "--valid", "30m")
        self.ca("revoke", "site-b", "--trust", trust)
        self.token(trust, "site-b")
        got = self.list(trust)
        self.assertEqual(got["address"], ADDRESS)
        self.assertEqual([(t["name"], t["role"], t["generation"]) for t in got["tokens"]],
                         [("site-a", "observer", 2), ("site-b", "trainer", 5), ("site-c", "operator", 3)])
        self.assertEqual(got["revoked"], [{"name": "site-b", "generation": 3}])
        for token, most in zip(got["tokens"], (7 * 86400, 3600, 1800)):
            self.assertLessEqual(token["remaining_ms"], 1000 * most)
            self.assertGreater(token["remaining_ms"], 1000 * (most - 600))
        text = self.ca("list", "--trust", trust).stdout
        for part in (ADDRESS, "site-a", "observer", "revoked"):
            self.assertIn(part, text)

    def test_a_slip_of_the_name_is_told(self):
        trust = self.make()
        self.token(trust, "hospital-a")
        self.token(trust, "lab")
        done = self.ca("revoke", "hospital-b", "--trust", trust, code=65)
        self.assertIn('did you mean "hospital-a"?', done.stderr)
        self.assertNotIn("did you mean", self.ca("revoke", "zoo", "--trust", trust, code=65).stderr)
        for name in ("lab", "hospital-a", "hospital-a"):  # also one whose token is gone by then
            self.assertIn("is shut out", self.ca("revoke", name, "--trust", trust).stderr)
        self.assertEqual([r["name"] for r in self.list(trust)["revoked"]], ["hospital-a", "hospital-b", "lab", "zoo"])
        os.remove(os.path.join(trust, "names"))  # as of an earlier build: nobody knows
        self.token(trust, "pool")
        self.assertFalse(os.path.exists(os.path.join(trust, "names")))
        self.assertIn("is shut out", self.ca("revoke", "hospital-c", "--trust", trust).stderr)

    def test_refusals(self):
        trust = self.make()
        with open(os.path.join(trust, "ca.key"), "rb") as file:
            key = file.read()
        cases = [
            (73, ["init", trust, "--address", "other:1"], "ca.key"),
            (64, ["init", self.path("new")], "--address"),
            (64, ["init", self.path("new"), "--address", "0.0.0.0:7640"], "0.0.0.0"),
            (64, ["token", "--trust", trust], "--name"),
            (64, ["token", "--trust", trust, "--name", "a b"], "a b"),
            (64, ["token", "--trust", trust, "--name", "a", "--role", "server"], "trainer, observer, operator"),
            (64, ["token", "--trust", trust, "--name", "a", "--valid", "1"], "write a number with a unit, as in 30s"),
            (64, ["token", "--trust", trust, "--name", "a", "--valid", "31d"], "duration"),
            (64, ["revoke", "--trust", trust], "NAME"),
            (64, ["remove"], "remove"),
            (64, [], "ca what?"),
            (65, ["list", "--trust", self.path("none")], "starling ca init"),
        ]
        for code, args, said in cases:
            with self.subTest(args):
                done = self.ca(*args, code=code)
                self.assertEqual(done.stdout, "")
                self.assertIn(said, done.stderr)
        with open(os.path.join(trust, "ca.key"), "rb") as file:
            self.assertEqual(file.read(), key)
        self.assertFalse(os.path.exists(self.path("new")))
        for name, mend in (("ca.key", "chmod 600"), ("", "chmod 700")):
            path = os.path.join(trust, name)
            mode = stat.S_IMODE(os.stat(path).st_mode)
            os.chmod(path, mode | 0o040)
            for args in (["list"], ["token", "--name", "a"], ["revoke", "a"]):
                self.assertIn(mend, self.ca(*args, "--trust", trust, code=78).stderr)
            os.chmod(path, mode)
        self.assertEqual(self.list(trust)["tokens"], [])

    def test_help(self):
        for args in (["--help"], ["init", "--help"], ["token", "--help"], ["revoke", "--help"], ["list", "--help"]):
            done = self.ca(*args)
            self.assertTrue(done.stdout.startswith("Examples:"), done.stdout)
            self.assertEqual(done.stderr, "")


if __name__ == "__main__":
    unittest.main()
