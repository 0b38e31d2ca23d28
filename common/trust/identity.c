/* identity.pem:
 *
 *     starling-identity 1 HOST:PORT
 *     the private key, the certificate and the authority's certificate, as PEM
 *
 * Valid if and only if (1) nobody but its owner may use the file, (2) it is, byte for byte, what identity_save writes,
 * (3) the authority's certificate is one, signed by itself, (4) it has signed the certificate, which (5) is for the key
 * and (6) says a name, a role and a generation. */
#include "common/trust/identity.h"

#include "common/base/disk.h"
#include "common/base/mem.h"
#include "common/trust/internal.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FILE_NAME "identity.pem"
#define HEAD      "starling-identity 1 "
#define FILE_MAX  16384

struct request {
    EVP_PKEY *key;
    uint8_t *csr;
    size_t len;
};

int request_new(struct request **out, struct err *err)
{
    struct request *request = mem_new(1, sizeof *request);
    *out = NULL;
    if (!request) {
        return err_set(err, ERR_NOMEM, "%s", err_meaning(ERR_NOMEM));
    }
    int rc = key_new(&request->key, err);
    rc = rc ? rc : csr_new(request->key, &request->csr, &request->len, err);
    if (rc) {
        request_free(request);
        return rc;
    }
    *out = request;
    return 0;
}

void request_free(struct request *request)
{
    if (request) {
        EVP_PKEY_free(request->key);
        OPENSSL_free(request->csr);
        mem_free(request);
    }
}

const uint8_t *request_csr(const struct request *request, size_t *len)
{
    *len = request->len;
    return request->csr;
}

int request_credential(const struct request *request, const uint8_t *certificate, size_t certificate_len,
                       const uint8_t *ca, size_t ca_len, struct credential **out, struct err *err)
{
    struct credential *made = mem_new(1, sizeof *made);
    *out = NULL;
    if (!made) {
        return err_set(err, ERR_NOMEM, "%s", err_meaning(ERR_NOMEM));
    }
    EVP_PKEY_up_ref(request->key);
    made->key = request->key;
    int rc = certificate_read(certificate, certificate_len, &made->certificate, err);
    rc = rc ? rc : certificate_read(ca, ca_len, &made->ca, err);
    rc = rc ? rc : certificate_check(made->certificate, made->ca, made->key, err);
    rc = rc ? rc : subject_of(made->certificate, &made->subject, err);
    if (rc) {
        credential_free(made);
        return rc;
    }
    *out = made;
    return 0;
}

static int file_path(const char *dir, char out[DISK_PATH_MAX], struct err *err)
{
    return disk_join(out, dir, FILE_NAME) ? err_set(err, ERR_LIMIT, "%.80s...: the path is too long", dir) : 0;
}

int identity_save(const char *dir, const struct credential *credential, const char *address, struct err *err)
{
    char path[DISK_PATH_MAX], host[TRUST_HOST_MAX], head[sizeof HEAD + TRUST_ADDRESS_MAX], *pem = NULL;
    int rc = strlen(address) < TRUST_ADDRESS_MAX ? trust_host(address, host, err)
                                                 : err_set(err, ERR_USAGE, "the address is too long");
    rc = rc ? rc : file_path(dir, path, err);
    rc = rc ? rc : disk_make_folder(&disk_posix, dir, err);
    if (rc) {
        return rc;
    }
    BIO *bio = pem_write(credential->key, credential->certificate, credential->ca);
    if (!bio) {
        return trust_fail(err, ERR_FAILED, "PEM");
    }
    int head_len = snprintf(head, sizeof head, HEAD "%s\n", address);
    long pem_len = BIO_get_mem_data(bio, &pem);
    struct span parts[] = {{head, (size_t)head_len}, {pem, (size_t)pem_len}};
    rc = disk_save(&disk_posix, path, parts, 2, err);
    BIO_free(bio);
    return rc;
}

/* The first line's address; the bytes of the line, 0 when there is none. */
static size_t read_head(const uint8_t *data, size_t len, char address[TRUST_ADDRESS_MAX])
{
    char host[TRUST_HOST_MAX];
    const size_t head = sizeof HEAD - 1;
    const uint8_t *end = memchr(data, '\n', len);
    size_t bytes = end ? (size_t)(end - data) : 0;
    if (bytes <= head || bytes - head >= TRUST_ADDRESS_MAX || memcmp(data, HEAD, head) != 0) {
        return 0;
    }
    memcpy(address, data + head, bytes - head);
    address[bytes - head] = '\0';
    return strlen(address) == bytes - head && trust_host(address, host, NULL) == 0 ? bytes + 1 : 0;
}

int identity_load(const char *dir, struct credential **out, char address[TRUST_ADDRESS_MAX], struct err *err)
{
    char path[DISK_PATH_MAX];
    uint8_t *data = NULL;
    size_t len = 0;
    struct err reason = {.text = "damaged"};
    *out = NULL;
    address[0] = '\0';
    int rc = file_path(dir, path, err);
    rc = rc ? rc : trust_private(path, false, err);
    rc = rc ? rc : disk_load(&disk_posix, path, FILE_MAX, &data, &len, err);
    if (rc) {
        return rc;
    }
    struct credential *read = mem_new(1, sizeof *read);
    size_t head = read_head(data, len, address);
    rc = !read ? ERR_NOMEM : head == 0 ? ERR_DATA : 0;
    rc = rc ? rc : pem_read(data + head, len - head, &read->key, &read->certificate, &read->ca, &reason);
    rc = rc ? rc : certificate_check(read->certificate, read->ca, read->key, &reason);
    rc = rc ? rc : subject_of(read->certificate, &read->subject, &reason);
    OPENSSL_cleanse(data, len);
    mem_free(data);
    if (rc) {
        credential_free(read);
        address[0] = '\0';
        return rc == ERR_NOMEM
                   ? err_set(err, rc, "%s", err_meaning(rc))
                   : err_set(err, rc, "%.200s: %.200s; delete it and join again with a new token", path, reason.text);
    }
    *out = read;
    return 0;
}

bool identity_exists(const char *dir)
{
    char path[DISK_PATH_MAX];
    return file_path(dir, path, NULL) == 0 && access(path, F_OK) == 0;
}
