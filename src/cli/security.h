/* TLS and tokens on the command line: files in, texts out. */
#ifndef SKALD_CLI_SECURITY_H
#define SKALD_CLI_SECURITY_H

#include "cli/arguments.h"
#include "skald/net.h"

/* Names of files; NULL: not given. */
typedef struct security {
    const char *ca, *cert, *key, *token;
} security;

/* Entries of an option table whose values hold a `security` at AT(security). clang-format off: a table reads best as
 * one. */
/* clang-format off */
#define SECURITY_OPTIONS \
    {"tls-ca", SKALD_OPTION_TEXT, AT(security.ca), .value = "FILE", \
     .help = "Certificates (PEM) of whom to believe: makes it TLS, and at a coordinator makes it mutual", \
     .group = "Who may speak:"}, \
    {"tls-cert", SKALD_OPTION_TEXT, AT(security.cert), .value = "FILE", .help = "Own certificate (PEM)"}, \
    {"tls-key", SKALD_OPTION_TEXT, AT(security.key), .value = "FILE", .help = "Its private key (PEM)"}, \
    {"token-file", SKALD_OPTION_TEXT, AT(security.token), .value = "FILE", \
     .help = "A shared secret to say, or to ask for; a coordinator's may have lines 'ROLE SECRET' (worker, status, operator)"}
/* clang-format on */

typedef struct secrets {
    skald_net_security net; /* give &net to the net port while this lives */
    char *texts[4];
} secrets;

/* Reads the files. SKALD_EIO and SKALD_EINVAL name option and file. A key or a token that others may read is refused, a
 * certificate that is not valid today, and a key that is not its own. */
skald_status secrets_read(const security *files, secrets *out);
void secrets_free(secrets *s); /* overwrites what it frees; NULL-safe members */
/* Does a server with these encrypt; and ask who comes, too? */
bool security_encrypts(const security *files);
bool security_asks(const security *files);

#endif
