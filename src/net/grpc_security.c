#include "net/grpc_security.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

#define TOKEN_KEY "skald-token"
#define ROLE_PREFIX "skald:"

static const struct {
    const char *name;
    net_role role;
} roles[] = {{"worker", NET_ROLE_WORKER}, {"status", NET_ROLE_STATUS}, {"operator", NET_ROLE_OPERATOR}};

/* ---- credentials ----------------------------------------------------------------------------------------- */

static skald_status check_pem(const char *text, const char *label, const char *what) {
    if (!text || strstr(text, label)) return SKALD_OK;
    return skald_fail(SKALD_EINVAL, "%s: no PEM text (nothing like -----BEGIN %s----- in it)", what, label);
}

static skald_status check(const skald_net_security *s) {
    if (!s->cert != !s->key)
        return skald_fail(SKALD_EINVAL, "a TLS certificate needs its key, and a key its certificate");
    TRY(check_pem(s->ca, "BEGIN CERTIFICATE", "TLS CA"));
    TRY(check_pem(s->cert, "BEGIN CERTIFICATE", "TLS certificate"));
    TRY(check_pem(s->key, "PRIVATE KEY", "TLS key"));
    if (s->token && !s->token[strspn(s->token, " \t\r\n")]) return skald_fail(SKALD_EINVAL, "the token is empty");
    return SKALD_OK;
}

skald_status net_server_credentials(const skald_net_security *s, grpc_server_credentials **out) {
    *out = NULL;
    if (s) TRY(check(s));
    if (!s || (!s->cert && !s->ca)) {
        *out = grpc_insecure_server_credentials_create();
        return SKALD_OK;
    }
    if (!s->cert) return skald_fail(SKALD_EINVAL, "a TLS server needs a certificate and its key");
    grpc_ssl_pem_key_cert_pair pair = {s->key, s->cert};
    *out = grpc_ssl_server_credentials_create(s->ca, &pair, 1,
                                              s->ca ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                                                    : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE,
                                              NULL);
    return *out ? SKALD_OK : skald_fail(SKALD_EINVAL, "the TLS certificate or its key cannot be used");
}

skald_status net_channel_credentials(const skald_net_security *s, grpc_channel_credentials **out) {
    *out = NULL;
    if (s) TRY(check(s));
    if (!s || (!s->cert && !s->ca)) {
        *out = grpc_insecure_credentials_create();
        return SKALD_OK;
    }
    if (!s->ca) return skald_fail(SKALD_EINVAL, "a TLS client needs the CA that it is to believe");
    grpc_ssl_pem_key_cert_pair pair = {s->key, s->cert};
    *out = grpc_ssl_credentials_create(s->ca, s->cert ? &pair : NULL, NULL, NULL);
    return *out ? SKALD_OK : skald_fail(SKALD_EINVAL, "the TLS certificate, its key or the CA cannot be used");
}

/* ---- what a certificate allows ---------------------------------------------------------------------------- */

static net_role role_named(const char *name, size_t size) {
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(roles); k++)
        if (strlen(roles[k].name) == size && memcmp(roles[k].name, name, size) == 0) return roles[k].role;
    return 0;
}

static const char *role_name(net_role role) {
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(roles); k++)
        if (roles[k].role == role) return roles[k].name;
    return "?";
}

static bool may(int granted, net_role needed) {
    return granted & (NET_ROLE_OPERATOR | (int)needed);
}

/* The first of its names of this kind; "" without. */
static void take_name(grpc_auth_context *context, const char *kind, char identity[NET_IDENTITY_BYTES]) {
    grpc_auth_property_iterator names = grpc_auth_context_find_properties_by_name(context, kind);
    const grpc_auth_property *p = grpc_auth_property_iterator_next(&names);
    if (p && strlen(p->value) == p->value_length && p->value_length < NET_IDENTITY_BYTES)
        memcpy(identity, p->value, p->value_length + 1);
}

static skald_status by_certificate(grpc_call *call, net_role needed, char identity[NET_IDENTITY_BYTES],
                                   char reason[NET_REASON_BYTES]) {
    grpc_auth_context *context = grpc_call_auth_context(call);
    int granted = 0;
    const grpc_auth_property *p;
    take_name(context, GRPC_X509_CN_PROPERTY_NAME, identity);
    if (!identity[0]) take_name(context, GRPC_PEER_DNS_PROPERTY_NAME, identity);
    grpc_auth_property_iterator uris = grpc_auth_context_find_properties_by_name(context, GRPC_PEER_URI_PROPERTY_NAME);
    while ((p = grpc_auth_property_iterator_next(&uris)))
        if (p->value_length > strlen(ROLE_PREFIX) && memcmp(p->value, ROLE_PREFIX, strlen(ROLE_PREFIX)) == 0)
            granted |= (int)role_named(p->value + strlen(ROLE_PREFIX), p->value_length - strlen(ROLE_PREFIX));
    grpc_auth_context_release(context);
    if (!identity[0]) { /* else it could call itself anything */
        snprintf(reason, NET_REASON_BYTES,
                 "the certificate does not say whose it is: it has neither a common name nor "
                 "a DNS name");
        return SKALD_EREFUSED;
    }
    if (may(granted, needed)) return SKALD_OK;
    snprintf(reason, NET_REASON_BYTES, "the certificate of '%s' does not have the URI name %s%s", identity, ROLE_PREFIX,
             role_name(needed));
    return SKALD_EREFUSED;
}

/* ---- tokens ----------------------------------------------------------------------------------------------- */

/* Takes as long whatever differs. */
static bool same(const char *a, size_t size_a, const uint8_t *b, size_t size_b) {
    unsigned differs = size_a != size_b;
    for (size_t k = 0; k < size_b; k++) differs |= (unsigned)b[k] ^ (unsigned char)(size_a ? a[k % size_a] : 0);
    return differs == 0;
}

/* The next line's role (all of them when it names none) and secret; false at the end. */
static bool next_token(const char **at, int *granted, const char **secret, size_t *size) {
    *at += strspn(*at, " \t\r\n");
    if (!**at) return false;
    size_t first = strcspn(*at, " \t\r\n"), gap = strspn(*at + first, " \t");
    size_t second = gap ? strcspn(*at + first + gap, " \t\r\n") : 0;
    *granted = second ? (int)role_named(*at, first) : NET_ROLE_OPERATOR;
    *secret = second ? *at + first + gap : *at;
    *size = second ? second : first;
    *at += strcspn(*at, "\n");
    return true;
}

static skald_status by_token(const net_guard *guard, const grpc_metadata_array *metadata, net_role needed,
                             char reason[NET_REASON_BYTES]) {
    int granted = 0;
    bool said = false;
    for (size_t k = 0; k < metadata->count; k++) {
        const grpc_metadata *m = &metadata->metadata[k];
        if (grpc_slice_str_cmp(m->key, TOKEN_KEY) != 0) continue;
        said = true;
        const char *at = guard->tokens, *secret;
        size_t size;
        int allows;
        while (next_token(&at, &allows, &secret, &size))
            if (same(secret, size, GRPC_SLICE_START_PTR(m->value), GRPC_SLICE_LENGTH(m->value))) granted |= allows;
    }
    if (may(granted, needed)) return SKALD_OK;
    snprintf(reason, NET_REASON_BYTES, "%s",
             !said     ? "this coordinator asks for a token (--token-file)"
             : granted ? "the token does not allow that"
                       : "the token is not one of this coordinator's");
    return said && !granted ? SKALD_EPEER : SKALD_EREFUSED;
}

skald_status net_token_fill(const skald_net_security *s, const char *address, grpc_metadata *out, size_t *count) {
    *count = 0;
    if (!s || !s->token) return SKALD_OK;
    if (!s->ca && !skald_address_is_local(address))
        return skald_fail(SKALD_EINVAL, "a token would go to %s in plain text; use TLS (--tls-ca)", address);
    const char *at = s->token, *secret;
    size_t size;
    int granted;
    if (!next_token(&at, &granted, &secret, &size)) return skald_fail(SKALD_EINVAL, "the token is empty");
    memset(out, 0, sizeof *out);
    out->key = grpc_slice_from_static_string(TOKEN_KEY);
    out->value = grpc_slice_from_copied_buffer(secret, size);
    *count = 1;
    return SKALD_OK;
}

void net_token_clear(grpc_metadata *metadata, size_t count) {
    if (count) grpc_slice_unref(metadata->value);
}

/* ---- the door --------------------------------------------------------------------------------------------- */

static bool encrypted(grpc_call *call, char reason[NET_REASON_BYTES]) {
    grpc_auth_context *context = grpc_call_auth_context(call);
    grpc_auth_property_iterator kinds =
        grpc_auth_context_find_properties_by_name(context, GRPC_TRANSPORT_SECURITY_TYPE_PROPERTY_NAME);
    const grpc_auth_property *p = grpc_auth_property_iterator_next(&kinds);
    const bool is = p && p->value_length == strlen(GRPC_SSL_TRANSPORT_SECURITY_TYPE) &&
                    memcmp(p->value, GRPC_SSL_TRANSPORT_SECURITY_TYPE, p->value_length) == 0;
    grpc_auth_context_release(context);
    if (!is) snprintf(reason, NET_REASON_BYTES, "this address answers health probes only (--health)");
    return is;
}

skald_status net_guard_init(net_guard *guard, const skald_net_security *s) {
    *guard = (net_guard){0};
    if (!s) return SKALD_OK;
    guard->certificates = s->cert && s->ca;
    if (!s->token) return SKALD_OK;
    const char *at = s->token, *secret;
    size_t size;
    int granted;
    while (next_token(&at, &granted, &secret, &size))
        if (!granted)
            return skald_fail(SKALD_EINVAL, "a token's line is 'SECRET' or 'ROLE SECRET', ROLE one of worker, status, "
                                            "operator");
    guard->tokens = strdup(s->token);
    return guard->tokens ? SKALD_OK : skald_fail(SKALD_ENOMEM, "out of memory");
}

void net_guard_fini(net_guard *guard) {
    if (guard->tokens) explicit_bzero(guard->tokens, strlen(guard->tokens));
    free(guard->tokens);
    guard->tokens = NULL;
}

skald_status net_guard_admits(const net_guard *guard, grpc_call *call, const grpc_metadata_array *metadata,
                              net_role needed, char identity[NET_IDENTITY_BYTES], char reason[NET_REASON_BYTES]) {
    skald_status st = SKALD_OK;
    identity[0] = '\0';
    if (guard->probed && !encrypted(call, reason)) return SKALD_EREFUSED;
    if (guard->certificates) st = by_certificate(call, needed, identity, reason);
    if (st == SKALD_OK && guard->tokens) st = by_token(guard, metadata, needed, reason);
    return st;
}
