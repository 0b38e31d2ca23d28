#!/usr/bin/env python3
"""Plants mistakes in common/trust, one at a time in a copy, and expects a unit test to find each.

    planted.py ROOT         exit 1 and one line for each mistake that nothing found

A mistake is a piece of a file, which must stand in it once, what takes its place, and the test that must fail.
"""
import concurrent.futures
import os
import pathlib
import subprocess
import sys
import tempfile

LIBRARIES = ["libcrypto", "libssl", "libxxhash", "cmocka"]
FLAGS = ["-std=c11", "-O1", "-g1", "-D_GNU_SOURCE", "-w"]

PLANTED = [
    # Tokens.
    ("token.c", "store_u32(at, crc32c(0, bytes, len));", "store_u32(at, 0);",
     "token", "every_damage_is_found"),
    ("token.c", "strlen(again) == len && memcmp(again, text, len) == 0", "strlen(again) > 0",
     "token", "every_damage_is_found"),
    ("token.c", "token->role > TRUST_OPERATOR", "token->role > TRUST_SERVER",
     "token", "fields_are_checked"),
    ("token.c", "OPENSSL_cleanse(out, sizeof *out);", "",
     "token", "every_damage_is_found"),
    # Spending them.
    ("authority.c", "rc = rc ? rc : folder_token_remove(&authority->folder, token->id, err);\n    if (rc)", "if (rc)",
     "authority", "a_token_is_good_once"),
    ("authority.c", "if (token->expires < now)", "if (false)",
     "authority", "a_token_expires"),
    ("authority.c", "if (token->expires < now)", "if (token->expires <= now)",
     "authority", "a_token_expires"),
    ("authority.c", "tokens[i].expires < now || (name", "(name",
     "authority", "a_token_expires"),
    # The lock is given up between looking and removing.
    ("authority.c", "rc = rc ? rc : folder_token_remove(&authority->folder, token->id, err);\n    if (rc)",
     "folder_unlock(&authority->folder);\n    usleep(1000);\n"
     "    rc = rc ? rc : folder_token_remove(&authority->folder, token->id, err);\n    if (rc)",
     "authority", "a_token_is_good_once_among_processes"),
    # Revoking.
    ("authority.c", "subject->generation <= revoked->generation", "subject->generation < revoked->generation",
     "authority", "a_revocation_is_for_what_was"),
    ("authority.c", "return rc ? rc : sweep(authority, 0, name, err);", "return rc;",
     "authority", "a_revocation_is_for_what_was"),
    ("authority.c", "write_revocation(authority, name, next - 1, err)", "write_revocation(authority, name, next, err)",
     "authority", "a_revocation_is_for_what_was"),
    ("authority.c", "return authority_is_revoked(authority, out) ?", "return false ?",
     "authority", "a_revocation_that_was_cut_off_holds"),
    ("authority.c", "if (rc == 0 && authority_is_revoked(authority, subject)) {", "if (false) {",
     "certificate", "roles_and_generations_come_back"),
    ("folder.c", "strcmp(before->name, out->name) < 0", "true",
     "authority", "damaged_files_are_refused"),
    # Who may see it.
    ("authority.c", "rc = rc ? rc : trust_private(path, err);", "",
     "authority", "what_others_may_use_is_refused"),
    ("folder.c", "int rc = trust_private(path, err);", "int rc = 0;",
     "authority", "what_others_may_use_is_refused"),
    ("identity.c", "rc = rc ? rc : trust_private(path, err);", "",
     "identity", "only_for_its_owner"),
    ("trust.c", "st.st_mode & 077)", "st.st_mode & 044)",
     "identity", "only_for_its_owner"),
    # What is signed.
    ("certificate.c", "X509_REQ_verify(request, X509_REQ_get0_pubkey(request)) != 1", "false",
     "certificate", "the_key_must_have_signed"),
    ("certificate.c", "X509_REQ_get_signature_nid(request) != NID_ecdsa_with_SHA256", "false",
     "certificate", "one_kind_of_key"),
    ("certificate.c", "bool ok = len == (int)P256_BYTES && memcmp(bytes, p256_head, sizeof p256_head) == 0;",
     "bool ok = len >= (int)P256_BYTES;", "certificate", "one_kind_of_key"),
    ("certificate.c", "if (!request || at != der + len) {", "if (!request) {",
     "certificate", "damaged_requests_are_refused"),
    ("certificate.c", "subject->role == TRUST_SERVER ? \"serverAuth\" : \"clientAuth\"", "\"clientAuth,serverAuth\"",
     "certificate", "a_certificate_says_what_was_decided"),
    ("authority.c", "(subject->role < TRUST_TRAINER || subject->role > TRUST_OPERATOR)", "false",
     "certificate", "roles_and_generations_come_back"),
    ("trust.c", "X509_NAME_entry_count(name) != 2", "false",
     "certificate", "other_subjects_are_nobody"),
    # What is loaded.
    ("certificate.c", "X509_verify(certificate, X509_get0_pubkey(ca)) != 1", "false",
     "identity", "only_what_fits_is_saved"),
    ("certificate.c", "return X509_check_private_key(certificate, key) == 1", "return true",
     "identity", "parts_must_fit"),
    ("certificate.c", "(k && halves_agree(k))", "k",
     "identity", "damage_is_found"),
    ("certificate.c", "bytes >= 0 && (size_t)bytes == len && memcmp(data, text, len) == 0", "true",
     "identity", "damage_is_found"),
    ("authority.c", "if (rc != ERR_NOTFOUND) {", "if (false) {",
     "authority", "a_new_authority"),
]


def flags_of(what):
    return subprocess.run(["pkg-config", what, *LIBRARIES], check=True, capture_output=True, text=True).stdout.split()


class Yard:
    """Objects of everything as it is; a mistake costs one compilation and a link."""

    def __init__(self, root, folder):
        self.root, self.folder = root, pathlib.Path(folder)
        self.compile_flags, self.link_flags = flags_of("--cflags"), flags_of("--libs")
        self.room = sorted((root / "common/trust").glob("*.c"))
        self.tests = sorted({test for *_, test, _ in PLANTED})
        sources = [*self.room, *sorted((root / "common/base").glob("*.c"))]
        sources += [root / f"tests/unit/common/trust/test_{test}.c" for test in self.tests]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(lambda source: self.compile(source, source.stem), sources))
        # No mistake here is one of durability, and a slow disk would make minutes of it.
        quick = self.folder / "quick.c"
        quick.write_text("int fsync(int file); int fsync(int file) { (void)file; return 0; }\n")
        objects.append(self.compile(quick, "quick"))
        self.objects = [o for o in objects if not o.stem.startswith("test_")]

    def compile(self, source, name):
        to = self.folder / f"{name}.o"
        command = [os.environ.get("CC", "cc"), *FLAGS, *self.compile_flags, "-I", self.root, "-c", source, "-o", to]
        subprocess.run(command, check=True)
        return to

    def fails(self, test, only=None, instead=None, by=None):
        """Whether test_TEST (its test `only`) fails when the object `by` stands in for the room's file `instead`."""
        objects = [by if instead and o.stem == instead else o for o in self.objects]
        program = self.folder / f"{by.stem if by else 'whole'}-{test}"
        link = [os.environ.get("CC", "cc"), "-o", program, self.folder / f"test_{test}.o", *objects, *self.link_flags, "-lm"]
        subprocess.run(link, check=True)
        run = [program, *([only] if only else [])]
        done = subprocess.run(run, capture_output=True, text=True, errors="replace", timeout=300, check=False)
        program.unlink()
        return done.returncode != 0


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        yard = Yard(root, folder)
        for test in yard.tests:
            if yard.fails(test):
                sys.exit(f"test_{test} fails with nothing planted")
        for number, (name, old, new, test, expected) in enumerate(PLANTED):
            text = (root / "common/trust" / name).read_text()
            if text.count(old) != 1:
                missed.append(f"{name}: {old!r} stands there {text.count(old)} times")
                continue
            copy = yard.folder / f"planted{number}.c"
            copy.write_text(text.replace(old, new))
            mistake = f"{name}: {new or 'nothing'!r} instead of {old!r}"
            found = yard.fails(test, expected, pathlib.Path(name).stem, yard.compile(copy, copy.stem))
            print(f"{mistake}: {'found' if found else 'NOT FOUND'} by {test}, {expected}", flush=True)
            if not found:
                missed.append(f"{mistake}: not found by {test}, {expected}")
    for line in missed:
        print(line)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
