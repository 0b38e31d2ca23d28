/* What the files of this room share, and what a certificate says.
 *
 * A certificate is read back as strictly as it is written: CN is the name, OU the word of the role, nothing else is in
 * the subject, and the upper 64 of the serial number's 160 bits are the generation. */
#include "common/base/mem.h"
#include "common/trust/internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

void credential_free(struct credential *credential)
{
    if (credential) {
        EVP_PKEY_free(credential->key);
        X509_free(credential->certificate);
        X509_free(credential->ca);
        mem_free(credential);
    }
}

const struct trust_subject *credential_subject(const struct credential *credential)
{
    return &credential->subject;
}

int credential_pin(const struct credential *credential, uint8_t pin[32], struct err *err)
{
    return certificate_pin(credential->ca, pin, err);
}

int credential_check(const struct credential *credential, const uint8_t pin[32], const char *name, uint32_t role,
                     struct err *err)
{
    const struct trust_subject *subject = &credential->subject;
    uint8_t got[32];
    int rc = credential_pin(credential, got, err);
    if (rc == 0 && memcmp(got, pin, sizeof got) != 0) {
        rc =
            err_set(err, ERR_ACCESS, "the server sent a certificate of another authority than the one that is trusted");
    }
    if (rc == 0 && (strcmp(subject->name, name) != 0 || subject->role != role)) {
        rc = err_set(err, ERR_ACCESS, "the server sent a certificate for the %s %s, and this is the %s %s",
                     role_name(subject->role), subject->name, role_name(role), name);
    }
    return rc;
}

int trust_fail(struct err *err, int code, const char *what)
{
    unsigned long number = ERR_peek_last_error();
    const char *reason = number ? ERR_reason_error_string(number) : NULL;
    int rc = reason ? err_set(err, code, "%s: %s", what, reason) : err_set(err, code, "%s", what);
    ERR_clear_error();
    return rc;
}

int trust_host(const char *address, char host[TRUST_HOST_MAX], struct err *err)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_";
    static const char wrong[] = "%.300s: no address that sites can call; write HOST:PORT or [IPV6]:PORT";
    bool bracketed = address[0] == '[';
    const char *begin = address + (bracketed ? 1 : 0);
    size_t len = bracketed ? strcspn(begin, "]") : strspn(begin, letters);
    const char *port = begin + len + (bracketed && begin[len] ? 1 : 0);
    size_t digits = *port == ':' ? strspn(port + 1, "0123456789") : 0;
    if (len == 0 || len >= TRUST_HOST_MAX || digits == 0 || digits > 5 || port[1 + digits] || port[1] == '0' ||
        strtoul(port + 1, NULL, 10) > 65535) {
        return err_set(err, ERR_USAGE, wrong, address);
    }
    memcpy(host, begin, len);
    host[len] = '\0';
    struct in6_addr v6;
    static const struct in6_addr any = IN6ADDR_ANY_INIT;
    if (bracketed ? inet_pton(AF_INET6, host, &v6) != 1 || memcmp(&v6, &any, sizeof v6) == 0
                  : strcmp(host, "0.0.0.0") == 0) {
        return err_set(err, ERR_USAGE, wrong, address);
    }
    return 0;
}

int trust_private(const char *path, bool folder, struct err *err)
{
    struct stat st;
    if (stat(path, &st)) {
        return err_set(err, errno == ENOENT || errno == ENOTDIR ? ERR_NOTFOUND : ERR_IO, "%.200s: %s", path,
                       strerror(errno));
    }
    if (folder ? !S_ISDIR(st.st_mode) : !S_ISREG(st.st_mode)) { /* before its mode: nobody should chmod /dev/null */
        return err_set(err, ERR_CONFIG,
                       folder ? "%.200s: no folder; the one that `starling ca init` made is expected"
                              : "%.200s: no regular file, and what it holds is secret; move it away",
                       path);
    }
    if (st.st_mode & 077) {
        return err_set(err, ERR_CONFIG, "%.200s: others may use it (mode %03o), and it is secret; chmod %s %.200s",
                       path, (unsigned)st.st_mode & 0777, folder ? "700" : "600", path);
    }
    return 0;
}

int trust_digest(const void *data, size_t len, uint8_t out[TRUST_DIGEST], struct err *err)
{
    return EVP_Digest(data, len, out, NULL, EVP_sha256(), NULL) ? 0 : trust_fail(err, ERR_FAILED, "digest");
}

/* The one entry of this kind, as text without a zero in it. */
static bool name_entry(const X509_NAME *name, int nid, char *out, size_t size)
{
    int at = X509_NAME_get_index_by_NID(name, nid, -1);
    const X509_NAME_ENTRY *entry = at < 0 ? NULL : X509_NAME_get_entry(name, at);
    unsigned char *text = NULL;
    int len = entry ? ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(entry)) : -1;
    bool ok = len > 0 && (size_t)len < size && !memchr(text, 0, (size_t)len);
    if (ok) {
        memcpy(out, text, (size_t)len);
        out[len] = '\0';
    }
    OPENSSL_free(text);
    return ok;
}

static bool generation_of(const X509 *certificate, uint64_t *out)
{
    uint8_t bytes[20];
    BIGNUM *serial = ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), NULL);
    bool ok = serial && !BN_is_negative(serial) && BN_bn2binpad(serial, bytes, sizeof bytes) == sizeof bytes;
    BN_free(serial);
    if (ok) {
        *out = 0;
        for (int i = 0; i < 8; i++) {
            *out = *out << 8 | bytes[i];
        }
    }
    return ok;
}

static bool time_of(const ASN1_TIME *time, int64_t *out)
{
    struct tm tm = {0};
    if (!ASN1_TIME_to_tm(time, &tm)) {
        return false;
    }
    *out = (int64_t)timegm(&tm);
    return true;
}

int subject_of(const X509 *certificate, struct trust_subject *out, struct err *err)
{
    const X509_NAME *name = X509_get_subject_name(certificate);
    char role[16];
    *out = (struct trust_subject){0};
    if (!name || X509_NAME_entry_count(name) != 2 || !name_entry(name, NID_commonName, out->name, sizeof out->name) ||
        !name_is_valid(out->name) || !name_entry(name, NID_organizationalUnitName, role, sizeof role) ||
        !role_parse(role, &out->role)) {
        return trust_fail(err, ERR_DATA, "certificate: its subject is no name and role of this federation");
    }
    if (!generation_of(certificate, &out->generation) || !time_of(X509_get0_notBefore(certificate), &out->not_before) ||
        !time_of(X509_get0_notAfter(certificate), &out->not_after)) {
        return trust_fail(err, ERR_DATA, "certificate: its number or its dates are none of ours");
    }
    return 0;
}
