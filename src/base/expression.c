#include "base/expression.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

enum { LONGEST = 1000, DEEPEST = 32 };

typedef enum operation {
    NUMBER,
    NAME,
    NEGATE,
    NOT,
    ADD,
    SUBTRACT,
    MULTIPLY,
    DIVIDE,
    LESS,
    LESS_EQUAL,
    GREATER,
    GREATER_EQUAL,
    EQUAL,
    UNEQUAL,
    AND,
    OR,
    MINIMUM,
    MAXIMUM
} operation;

/* Postfix: an operation takes its operands off the stack. */
typedef struct step {
    operation op;
    double number;
    size_t name;
} step;

struct skald_expression {
    size_t count;
    step steps[];
};

typedef struct parser {
    const char *text, *at;
    const skald_name *names;
    size_t name_count;
    int depth;
    skald_expression *e; /* room for one step a character */
} parser;

static skald_status expected(const parser *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
static skald_status expected(const parser *p, const char *format, ...) {
    char what[700];
    va_list list;
    va_start(list, format);
    vsnprintf(what, sizeof what, format, list);
    va_end(list);
    return skald_fail(SKALD_EINVAL, "%s\n  %s\n  %*s^", what, p->text, (int)(p->at - p->text), "");
}

static void skip_space(parser *p) {
    while (isspace((unsigned char)*p->at)) p->at++;
}

static bool take(parser *p, const char *token) {
    skip_space(p);
    size_t n = strlen(token);
    if (strncmp(p->at, token, n) != 0) return false;
    p->at += n;
    return true;
}

static void emit(parser *p, operation op) {
    p->e->steps[p->e->count++] = (step){.op = op};
}

static skald_status any(parser *p);

static skald_status need(parser *p, const char *token) {
    return take(p, token) ? SKALD_OK : expected(p, "'%s' expected here", token);
}

static skald_status one_of_two(parser *p, operation op) {
    TRY(need(p, "("));
    TRY(any(p));
    TRY(need(p, ","));
    TRY(any(p));
    TRY(need(p, ")"));
    emit(p, op);
    return SKALD_OK;
}

static skald_status named(parser *p) {
    const char *start = p->at;
    size_t n = 0;
    while (isalnum((unsigned char)start[n]) || start[n] == '_') n++;
    p->at += n;
    if (n == 3 && strncmp(start, "min", 3) == 0) return one_of_two(p, MINIMUM);
    if (n == 3 && strncmp(start, "max", 3) == 0) return one_of_two(p, MAXIMUM);
    for (size_t k = 0; k < p->name_count; k++) {
        if (strlen(p->names[k].name) != n || strncmp(start, p->names[k].name, n) != 0) continue;
        emit(p, NAME);
        p->e->steps[p->e->count - 1].name = k;
        return SKALD_OK;
    }
    p->at = start;
    char known[500] = "";
    for (size_t k = 0, used = 0; k < p->name_count && used < sizeof known; k++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", k ? ", " : "", p->names[k].name);
    return expected(p, "unknown name '%.*s': known are %s, min and max", (int)skald_min_size(n, 40), start, known);
}

static skald_status unary(parser *p) {
    if (p->depth >= DEEPEST) return expected(p, "more than %d levels deep", DEEPEST);
    skip_space(p);
    skald_status st = SKALD_OK;
    p->depth++;
    if (take(p, "-")) {
        st = unary(p);
        if (st == SKALD_OK) emit(p, NEGATE);
    } else if (take(p, "(")) {
        st = any(p);
        if (st == SKALD_OK) st = need(p, ")");
    } else if (isdigit((unsigned char)*p->at) || *p->at == '.') {
        char *end;
        double number = strtod(p->at, &end);
        if (end == p->at || !isfinite(number)) {
            st = expected(p, "not a number");
        } else {
            p->at = end;
            emit(p, NUMBER);
            p->e->steps[p->e->count - 1].number = number;
        }
    } else if (isalpha((unsigned char)*p->at) || *p->at == '_') {
        st = named(p);
    } else {
        st = expected(p, "a number, a name or '(' expected here");
    }
    p->depth--;
    return st;
}

static skald_status product(parser *p) {
    TRY(unary(p));
    for (;;) {
        const bool times = take(p, "*");
        if (!times && !take(p, "/")) return SKALD_OK;
        TRY(unary(p));
        emit(p, times ? MULTIPLY : DIVIDE);
    }
}

static skald_status sum(parser *p) {
    TRY(product(p));
    for (;;) {
        const bool plus = take(p, "+");
        if (!plus && !take(p, "-")) return SKALD_OK;
        TRY(product(p));
        emit(p, plus ? ADD : SUBTRACT);
    }
}

static skald_status not(parser * p) {
    static const struct {
        const char *token;
        operation op;
    } comparisons[] = {{"<=", LESS_EQUAL}, {">=", GREATER_EQUAL}, {"==", EQUAL},
                       {"!=", UNEQUAL},    {"<", LESS},           {">", GREATER}};
    if (p->depth >= DEEPEST) return expected(p, "more than %d levels deep", DEEPEST);
    skip_space(p);
    if (*p->at == '!' && p->at[1] != '=') {
        p->at++;
        p->depth++;
        TRY(not(p));
        p->depth--;
        emit(p, NOT);
        return SKALD_OK;
    }
    TRY(sum(p));
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(comparisons); k++) {
        if (!take(p, comparisons[k].token)) continue;
        TRY(sum(p));
        emit(p, comparisons[k].op);
        break;
    }
    return SKALD_OK;
}

static skald_status all(parser *p) {
    TRY(not(p));
    while (take(p, "&&")) {
        TRY(not(p));
        emit(p, AND);
    }
    return SKALD_OK;
}

static skald_status any(parser *p) {
    TRY(all(p));
    while (take(p, "||")) {
        TRY(all(p));
        emit(p, OR);
    }
    return SKALD_OK;
}

skald_status skald_expression_parse(const char *text, const skald_name *names, size_t count, skald_expression **out) {
    *out = NULL;
    const size_t length = strlen(text);
    if (length > LONGEST)
        return skald_fail(SKALD_EINVAL, "an expression of %zu characters; at most %d", length, LONGEST);
    for (const char *c = text; *c; c++) /* it is quoted in messages */
        if (!isprint((unsigned char)*c)) return skald_fail(SKALD_EINVAL, "a character that cannot be printed");
    skald_expression *e = skald_zalloc(1, sizeof *e + (length + 1) * sizeof *e->steps);
    if (!e) return SKALD_ENOMEM;
    parser p = {.text = text, .at = text, .names = names, .name_count = count, .e = e};
    skald_status st = any(&p);
    skip_space(&p);
    if (st == SKALD_OK && *p.at) st = expected(&p, "an operator or the end expected here");
    if (st != SKALD_OK) {
        skald_expression_free(e);
        return st;
    }
    *out = e;
    return SKALD_OK;
}

static double apply(operation op, double a, double b) {
    switch (op) {
    case ADD:
        return a + b;
    case SUBTRACT:
        return a - b;
    case MULTIPLY:
        return a * b;
    case DIVIDE:
        return a / b;
    case LESS:
        return a < b;
    case LESS_EQUAL:
        return a <= b;
    case GREATER:
        return a > b;
    case GREATER_EQUAL:
        return a >= b;
    case EQUAL:
        return a == b;
    case UNEQUAL:
        return a != b;
    case AND:
        return a != 0 && b != 0;
    case OR:
        return a != 0 || b != 0;
    case MINIMUM:
        return fmin(a, b);
    default:
        return fmax(a, b);
    }
}

double skald_expression_value(const skald_expression *e, const double *values) {
    double stack[6 * DEEPEST + 8]; /* a level holds one operand of each kind of rule, at most */
    size_t top = 0;
    for (size_t k = 0; k < e->count; k++) {
        const step *s = &e->steps[k];
        switch (s->op) {
        case NUMBER:
            stack[top++] = s->number;
            break;
        case NAME:
            stack[top++] = values[s->name];
            break;
        case NEGATE:
            stack[top - 1] = -stack[top - 1];
            break;
        case NOT:
            stack[top - 1] = stack[top - 1] == 0;
            break;
        default:
            top--;
            stack[top - 1] = apply(s->op, stack[top - 1], stack[top]);
        }
    }
    return stack[0];
}

void skald_expression_free(skald_expression *e) {
    free(e);
}
