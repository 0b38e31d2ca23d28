"""What a server with --trust offers to whoever scans it: TLS 1.3 alone, few ciphers and groups, no second way in.

The scanner is OpenSSL's s_client, so that what is said here does not rest on our own use of OpenSSL."""
import os
import re
import subprocess
import unittest

import harness

CIPHERS = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
OTHER_CIPHERS = {"TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"}
GROUPS = {"X25519", "P-256"}
OTHER_GROUPS = {"P-384", "P-521", "X448", "ffdhe2048", "ffdhe3072"}
WAIT_S = 60


class TlsScan(harness.Federation):
    def setUp(self):
        super().setUp()
        self.ca = self.path("trust")
        done = self.run_to_end("starling", "ca", "init", self.ca, "--address", "127.0.0.1:7640")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.target = self.server(trust=self.ca)

    def scan(self, *args, say="Q\n", offer="starling/1"):
        """Returns (whether a handshake came about, all that s_client prints)."""
        command = ["openssl", "s_client", "-connect", self.target.address, *(["-alpn", offer] if offer else []), *args]
        done = subprocess.run(
            command, input=say, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=WAIT_S
        )
        return "Server public key is" in done.stdout, done.stdout

    def show_certificate(self, said):
        """As OpenSSL prints what s_client shows."""
        command = ["openssl", "x509", "-noout", "-text"]
        return subprocess.run(command, input=said, stdout=subprocess.PIPE, text=True, check=True, timeout=WAIT_S).stdout

    def tearDown(self):
        """Whatever was tried, the server answers those whom it knows."""
        done = self.run_to_end("starling", "status", "--server", self.target.address, "--trust", self.ca, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        super().tearDown()

    def test_versions(self):
        weak = ["-cipher", "ALL:COMPLEMENTOFALL@SECLEVEL=0"]
        for version in ("-tls1", "-tls1_1", "-tls1_2"):
            shaken, said = self.scan(version, *weak)
            self.assertFalse(shaken, version)
            self.assertIn("alert protocol version", said, version)
        shaken, said = self.scan(*weak)  # all that it can do
        self.assertTrue(shaken)
        self.assertIn("New, TLSv1.3, Cipher is", said)

    def test_ciphers_and_groups(self):
        for cipher in CIPHERS | OTHER_CIPHERS:
            shaken, said = self.scan("-tls1_3", "-ciphersuites", cipher)
            self.assertEqual(shaken, cipher in CIPHERS, said)
        for group in GROUPS | OTHER_GROUPS:
            shaken, said = self.scan("-tls1_3", "-groups", group)
            self.assertEqual(shaken, group in GROUPS, said)

    def test_certificate(self):
        root = os.path.join(self.ca, "ca.pem")
        known = ["-CAfile", root, "-no-CAstore", "-no-CApath", "-verify_return_error", "-purpose", "sslserver", "-x509_strict"]
        shaken, said = self.scan(*known)
        self.assertTrue(shaken, said)
        self.assertIn("Verify return code: 0 (ok)", said)
        self.assertRegex(said, r"Peer signature type: ECDSA")
        self.assertRegex(said, r"Server Temp Key: (X25519|ECDH, prime256v1)")
        for name, fits in (("-verify_ip 127.0.0.1", True), ("-verify_hostname localhost", True), ("-verify_ip 127.0.0.2", False)):
            self.assertEqual("Verify return code: 0 (ok)" in self.scan(*known, *name.split())[1], fits, name)
        names = re.search(r"Alternative Name:\s*(.*)", self.show_certificate(said))[1].split(", ")
        self.assertEqual(sorted(set(names)), sorted(names))
        # It is of no other CA, and no client's.
        self.assertNotIn("Verify return code: 0 (ok)", self.scan("-no-CAfile", "-no-CAstore", "-no-CApath")[1])
        self.assertNotIn("Verify return code: 0 (ok)", self.scan(*known[:-4], "-purpose", "sslclient")[1])

    def test_asks_for_a_certificate(self):
        _, said = self.scan("-msg")
        self.assertIn("CertificateRequest", said)
        key, own = self.path("key.pem"), self.path("own.pem")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key]
            + ["-out", own, "-subj", "/OU=trainer/CN=site-a", "-addext", "extendedKeyUsage=clientAuth"],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # Whoever has made its own is refused, and told; s_client stays until it is.
        command = ["openssl", "s_client", "-connect", self.target.address, "-alpn", "starling/1", "-cert", own, "-key", key]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as stranger:
            said = stranger.stdout.read()  # to the end of the connection
            self.assertNotEqual(stranger.wait(WAIT_S), 0)
        self.assertIn("alert unknown ca", said)
        self.target.wait_for("stranger_left")

    def test_application_protocol(self):
        for offer, taken in (("starling/1", True), ("h2,starling/1", True), ("h2,http/1.1", False), ("starling/2", False), (None, False)):
            shaken, said = self.scan(offer=offer)
            self.assertEqual(shaken, taken, offer)
            self.assertIn("ALPN protocol: starling/1" if taken else "alert no application protocol", said)

    def test_no_second_way(self):
        session = self.path("session")
        _, said = self.scan("-sess_out", session, "-msg", "-tls1_3")
        self.assertNotIn("NewSessionTicket", said)
        self.assertFalse(os.path.exists(session) and os.path.getsize(session))
        self.assertIn("Early data was not sent", said)
        self.assertNotRegex(said, r"Max Early Data: [1-9]")
        self.assertIn("Compression: NONE", said)
        shaken, said = self.scan(say="R\n")  # renegotiation
        self.assertTrue(shaken)
        self.assertRegex(said, re.compile("RENEGOTIATING.*error", re.S | re.I))

    def test_new_keys(self):
        shaken, said = self.scan("-msg", say="K\nQ\n")
        self.assertTrue(shaken)
        self.assertIn("KEYUPDATE", said)


if __name__ == "__main__":
    unittest.main()
