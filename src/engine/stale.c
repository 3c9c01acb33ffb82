/* Staleness policies: presets, rules, and what they make of a result. */
#include "skald/stale.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/expression.h"
#include "engine/run.h"

enum { MOST_RULES = 16 };

struct skald_stale_rules {
    struct {
        skald_stale action;
        skald_expression *when; /* NULL: always */
    } list[MOST_RULES];
    size_t count;
};

static const skald_name names[] = {{"staleness", "commits since the version it was computed from"},
                                   {"regular", "staleness of regular running"},
                                   {"workers", "how many there are"},
                                   {"worker", "number of the worker"},
                                   {"updates", "results merged so far"},
                                   {"passes", "rows processed / n"},
                                   {"slowdown", "the worker's task time over the median"}};

static const char *const actions[] = {"scale", "apply", "fold", "reject", "adapt"};

const char *skald_stale_name(skald_stale stale) {
    return actions[stale];
}

/* The word at the beginning of text; returns what follows it, NULL if it is no action. */
static const char *parse_action(const char *text, skald_stale *out) {
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(actions); k++) {
        const size_t length = strlen(actions[k]);
        if (strncmp(text, actions[k], length) != 0 || isalnum((unsigned char)text[length])) continue;
        *out = (skald_stale)k;
        return text + length;
    }
    return NULL;
}

static char *trim(char *text) {
    while (*text == ' ') text++;
    for (char *end = text + strlen(text); end > text && end[-1] == ' ';) *--end = '\0';
    return text;
}

static skald_status parse_rule(const char *text, size_t number, skald_stale_rules *rules) {
    skald_stale action;
    const char *rest = parse_action(text, &action);
    if (!rest)
        return skald_fail(SKALD_EINVAL,
                          "--stale: rule %zu, '%.60s', must begin with scale, apply, fold, reject or adapt", number,
                          text);
    while (*rest == ' ') rest++;
    skald_expression *when = NULL;
    if (*rest) {
        if (strncmp(rest, "if ", 3) != 0)
            return skald_fail(SKALD_EINVAL, "--stale: rule %zu, '%.60s': after %s comes 'if' and a condition", number,
                              text, skald_stale_name(action));
        skald_status st = skald_expression_parse(rest + 3, names, SKALD_ARRAY_LENGTH(names), &when);
        if (st != SKALD_OK) return skald_context(st, "--stale, rule %zu", number);
    }
    rules->list[rules->count].action = action;
    rules->list[rules->count++].when = when;
    return SKALD_OK;
}

/* The comma that ends the rule; those of min(a, b) are inside parentheses. */
static char *rule_end(char *text) {
    int depth = 0;
    for (; *text && (*text != ',' || depth > 0); text++) depth += (*text == '(') - (*text == ')');
    return text;
}

skald_status skald_stale_parse(const char *text, skald_stale *preset, skald_stale_rules **out) {
    *preset = SKALD_STALE_SCALE;
    *out = NULL;
    const char *rest = parse_action(text, preset);
    if (rest && !*rest) return SKALD_OK;
    skald_stale_rules *rules = skald_zalloc(1, sizeof *rules);
    char *copy = strdup(text);
    skald_status st = rules && copy ? SKALD_OK : skald_fail(SKALD_ENOMEM, "out of memory");
    for (char *at = copy, *end; st == SKALD_OK; at = end + 1) {
        end = rule_end(at);
        const bool last = !*end;
        *end = '\0';
        if (rules->count == MOST_RULES)
            st = skald_fail(SKALD_EINVAL, "--stale: at most %d rules", MOST_RULES);
        else
            st = parse_rule(trim(at), rules->count + 1, rules);
        if (last) break;
    }
    free(copy);
    if (st == SKALD_OK)
        *out = rules;
    else
        skald_stale_free(rules);
    return st;
}

void skald_stale_free(skald_stale_rules *rules) {
    for (size_t k = 0; rules && k < rules->count; k++) skald_expression_free(rules->list[k].when);
    free(rules);
}

skald_stale skald_stale_decide(const skald_stale_rules *rules, const skald_stale_view *v) {
    const double values[] = {(double)v->staleness, (double)v->regular, v->workers, v->worker,
                             (double)v->updates,   v->passes,          v->slowdown};
    _Static_assert(SKALD_ARRAY_LENGTH(values) == SKALD_ARRAY_LENGTH(names), "a value for each name");
    for (size_t k = 0; k < rules->count; k++) {
        const double holds = rules->list[k].when ? skald_expression_value(rules->list[k].when, values) : 1;
        if (holds != 0 && !isnan(holds)) return rules->list[k].action;
    }
    return SKALD_STALE_SCALE;
}

/* ---- in a run ------------------------------------------------------------------------------------------ */

/* What the policy makes of a result as stale as this. */
skald_stale skald_stale_action(skald_run *run, const skald_flight *flight, uint64_t staleness, uint64_t regular) {
    const skald_train_options *o = run->options;
    skald_stale action = o->stale;
    if (flight->piece) return SKALD_STALE_APPLY; /* of the model's way: needed whole, however late */
    if (o->stale_rules) {
        const skald_stale_view view = {.staleness = staleness,
                                       .regular = regular,
                                       .workers = run->size,
                                       .worker = flight->worker,
                                       .updates = run->updates,
                                       .passes = run->engine.passes,
                                       .slowdown = skald_table_slowdown(run, flight->worker)};
        action = skald_stale_decide(o->stale_rules, &view);
    } else if (action == SKALD_STALE_FOLD || action == SKALD_STALE_REJECT) {
        if (staleness <= (o->max_stale ? o->max_stale : 8 * (regular + 1))) action = SKALD_STALE_SCALE;
    }
    if (action != SKALD_STALE_REJECT || !run->history) return action;
    if (!run->told_folds) skald_run_notice(run, "a history loses no result: those to be rejected are folded into it");
    run->told_folds = true;
    return SKALD_STALE_FOLD;
}

skald_stale skald_stale_fate(const skald_merge *m, double step) {
    if (m->fold || step == 0) return m->action == SKALD_STALE_REJECT ? SKALD_STALE_REJECT : SKALD_STALE_FOLD;
    const bool scaled =
        m->action == SKALD_STALE_ADAPT ? m->adapted < 1 : m->action == SKALD_STALE_SCALE && m->staleness > m->regular;
    return scaled ? SKALD_STALE_SCALE : SKALD_STALE_APPLY;
}

/* Delay-adaptive (after Wu, Magnusson, Feyzmahdavian, Johansson 2022, adaptive 1): steps made while a result was under
 * way leave the rest of the budget for it. */
double skald_stale_part(const skald_run *run, uint64_t staleness, uint64_t regular) {
    double left = 1 + (double)regular;
    const uint64_t kept = staleness < SKALD_STEPS_KEPT ? staleness : SKALD_STEPS_KEPT;
    for (uint64_t k = 0; k < kept; k++) left -= (double)run->steps[(run->commits - k) % SKALD_STEPS_KEPT];
    return fmin(1, fmax(0, left));
}
