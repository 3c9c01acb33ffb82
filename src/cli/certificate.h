/* What can be told of an own certificate before anybody refuses it. */
#ifndef SKALD_CLI_CERTIFICATE_H
#define SKALD_CLI_CERTIFICATE_H

#include "skald/status.h"

/* Of the first certificate in `pem`, which is the file --tls-cert names, and of `key`, --tls-key's (NULL: none): is it
 * valid today, and is the key its own? SKALD_EINVAL says which file, since or until when, and what to do. */
skald_status certificate_check(const char *cert_path, const char *pem, const char *key_path, const char *key);

#endif
