/* Status codes and error messages: how every Skald function reports failure.
 *
 * A function that can fail returns skald_status. The one that detects the failure calls skald_fail(),
 * which stores a message for the calling thread; callers pass the code up with TRY and may prefix the
 * message with skald_context(). Nothing below src/cli prints or exits. */
#ifndef SKALD_STATUS_H
#define SKALD_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

/* Grouped by who has to do something about it. */
typedef enum skald_status {
    SKALD_OK = 0,
    /* the caller or the user */
    SKALD_EINVAL = 10, /* an argument or option out of its range */
    SKALD_EDATA,       /* input data that cannot be used: malformed, non-finite, mismatched */
    SKALD_EMODEL,      /* a model file that cannot be used, or does not fit the data */
    /* the environment */
    SKALD_ENOMEM = 20,
    SKALD_EIO,          /* file or socket failed; the message has the path and the reason */
    SKALD_EADDRINUSE,   /* listening address taken */
    SKALD_EUNAVAILABLE, /* peer not there, or not yet */
    SKALD_ETIMEOUT,
    SKALD_EUNSUPPORTED, /* this machine or build cannot do it */
    /* the peer */
    SKALD_EPEER = 30, /* message malformed or out of place */
    SKALD_EVERSION,   /* peer speaks another protocol version */
    SKALD_EREFUSED,   /* peer said no; its reason is the message */
    SKALD_ELOST,      /* peer gone */
    SKALD_ETOOBIG,    /* message over the limit */
    /* the numbers */
    SKALD_ENUMERIC = 40, /* a value that must be finite is not */
    SKALD_EDIVERGED,
    /* not failures */
    SKALD_AGAIN = 50,  /* nothing yet */
    SKALD_INTERRUPTED, /* asked to stop (signal) */
    SKALD_EINTERNAL = 60
} skald_status;

/* Stores a formatted message for this thread and returns `status`. Truncates at 1 KiB. Never fails. */
skald_status skald_fail(skald_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Prefixes this thread's message with "format: ". Returns `status` unchanged. */
skald_status skald_context(skald_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The calling thread's last message; "" if none. Valid until the thread's next skald_fail. */
const char *skald_error(void);

/* Short name of a code, e.g. "data". Static. */
const char *skald_status_name(skald_status status);

#define TRY(expr)                                                                                                      \
    do {                                                                                                               \
        skald_status try_status_ = (expr);                                                                             \
        if (try_status_ != SKALD_OK) return try_status_;                                                               \
    } while (0)

/* For functions with one cleanup label; `st` is the function's status variable. */
#define TRY_GOTO(st, expr, label)                                                                                      \
    do {                                                                                                               \
        (st) = (expr);                                                                                                 \
        if ((st) != SKALD_OK) goto label;                                                                              \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
