#include "cli/certificate.h"

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdbool.h>

static skald_status dates(const char *path, const X509 *certificate) {
    const ASN1_TIME *from = X509_get0_notBefore(certificate), *to = X509_get0_notAfter(certificate);
    const bool over = X509_cmp_current_time(to) < 0;
    if (!over && X509_cmp_current_time(from) < 0) return SKALD_OK;
    char when[64] = "?";
    BIO *out = BIO_new(BIO_s_mem());
    if (out && ASN1_TIME_print(out, over ? to : from) == 1) {
        const int length = BIO_read(out, when, sizeof when - 1);
        when[length > 0 ? length : 0] = '\0';
    }
    BIO_free(out);
    return over ? skald_fail(SKALD_EINVAL, "--tls-cert: %s expired on %s: nobody would let it in; get a new one", path,
                             when)
                : skald_fail(SKALD_EINVAL, "--tls-cert: %s is valid from %s on: is the clock of this machine right?",
                             path, when);
}

skald_status certificate_check(const char *cert_path, const char *pem, const char *key_path, const char *key) {
    BIO *in = BIO_new_mem_buf(pem, -1), *secret = key ? BIO_new_mem_buf(key, -1) : NULL;
    X509 *certificate = in ? PEM_read_bio_X509(in, NULL, NULL, NULL) : NULL;
    EVP_PKEY *own = secret ? PEM_read_bio_PrivateKey(secret, NULL, NULL, NULL) : NULL;
    skald_status st = SKALD_OK;
    if (!certificate)
        st = skald_fail(SKALD_EINVAL, "--tls-cert: %s is no certificate in PEM", cert_path);
    else if (key && !own)
        st = skald_fail(SKALD_EINVAL, "--tls-key: %s is no private key in PEM, or it wants a password", key_path);
    else if (own && X509_check_private_key(certificate, own) != 1)
        st = skald_fail(SKALD_EINVAL, "--tls-key: %s is not the key of %s", key_path, cert_path);
    else
        st = dates(cert_path, certificate);
    X509_free(certificate);
    EVP_PKEY_free(own);
    BIO_free(in);
    BIO_free(secret);
    return st;
}
