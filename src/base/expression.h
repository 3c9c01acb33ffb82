/* Arithmetic and logic over named numbers: what a user writes to say when (--barrier, --stale).
 *
 *   or:       and ('||' and)*                    numbers; 0 is false, everything else true
 *   and:      not ('&&' not)*
 *   not:      '!' not | sum (('<' | '<=' | '>' | '>=' | '==' | '!=') sum)?
 *   sum:      product (('+' | '-') product)*
 *   product:  unary (('*' | '/') unary)*
 *   unary:    '-' unary | NUMBER | NAME | '(' or ')' | ('min' | 'max') '(' or ',' or ')'
 */
#ifndef SKALD_BASE_EXPRESSION_H
#define SKALD_BASE_EXPRESSION_H

#include <stddef.h>

#include "skald/status.h"

typedef struct skald_expression skald_expression;

typedef struct skald_name {
    const char *name, *help;
} skald_name;

/* Reads the whole of `text` (at most 1000 characters, 32 parentheses deep). names: `count` entries, which must outlive
 * nothing. SKALD_EINVAL: the message quotes the text with a caret under what is wrong and says what may stand there;
 * SKALD_ENOMEM. Free with skald_expression_free. */
skald_status skald_expression_parse(const char *text, const skald_name *names, size_t count, skald_expression **out);
/* The value where name k has values[k]. Allocates nothing, cannot fail; x / 0 is infinite or NaN as in C. Any thread.
 */
double skald_expression_value(const skald_expression *e, const double *values);
void skald_expression_free(skald_expression *e); /* NULL-safe */

#endif
