#include "cli/security.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/certificate.h"
#include "skald/status.h"

enum { LONGEST = 1 << 20 };

/* Root may hand a file to a group, as orchestrators do with secrets: its members are whom root meant. */
static skald_status read_text(const char *option, const char *path, bool secret, char **out) {
    if (!path) return SKALD_OK;
    FILE *f = fopen(path, "re");
    struct stat about;
    if (!f || fstat(fileno(f), &about) != 0) {
        skald_status st = skald_fail(SKALD_EIO, "--%s: cannot read %s: %s", option, path, strerror(errno));
        if (f) fclose(f);
        return st;
    }
    skald_status st = SKALD_OK;
    char *text = NULL;
    if (!S_ISREG(about.st_mode) || about.st_size > LONGEST)
        st = skald_fail(SKALD_EINVAL, "--%s: %s is no file of at most 1 MiB", option, path);
    else if (secret && about.st_mode & (about.st_uid == 0 && geteuid() != 0 ? S_IWGRP | S_IRWXO : S_IRWXG | S_IRWXO))
        st = skald_fail(SKALD_EINVAL, "--%s: others may read %s; take that from them (chmod 600)", option, path);
    else if (!(text = calloc(1, (size_t)about.st_size + 1)))
        st = skald_fail(SKALD_ENOMEM, "out of memory");
    else if (fread(text, 1, (size_t)about.st_size, f) != (size_t)about.st_size)
        st = skald_fail(SKALD_EIO, "--%s: cannot read %s", option, path);
    else if (!text[strspn(text, " \t\r\n")])
        st = skald_fail(SKALD_EINVAL, "--%s: %s is empty", option, path);
    fclose(f);
    if (st != SKALD_OK) free(text);
    if (st == SKALD_OK) *out = text;
    return st;
}

skald_status secrets_read(const security *files, secrets *out) {
    *out = (secrets){0};
    skald_status st = read_text("tls-ca", files->ca, false, &out->texts[0]);
    if (st == SKALD_OK) st = read_text("tls-cert", files->cert, false, &out->texts[1]);
    if (st == SKALD_OK) st = read_text("tls-key", files->key, true, &out->texts[2]);
    if (st == SKALD_OK) st = read_text("token-file", files->token, true, &out->texts[3]);
    if (st == SKALD_OK && files->cert) st = certificate_check(files->cert, out->texts[1], files->key, out->texts[2]);
    if (st != SKALD_OK) {
        secrets_free(out);
        return st;
    }
    out->net = (skald_net_security){out->texts[0], out->texts[1], out->texts[2], out->texts[3]};
    return SKALD_OK;
}

void secrets_free(secrets *s) {
    for (size_t k = 0; k < sizeof s->texts / sizeof *s->texts; k++) {
        if (s->texts[k]) explicit_bzero(s->texts[k], strlen(s->texts[k]));
        free(s->texts[k]);
    }
    *s = (secrets){0};
}

bool security_encrypts(const security *files) {
    return files->cert && files->key;
}

bool security_asks(const security *files) {
    return security_encrypts(files) && (files->ca || files->token);
}
