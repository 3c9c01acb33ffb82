#include "cli/settings.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/straggler.h"
#include "curvature/blas.h"
#include "skald/choose.h"

/* "1=2.5,-1=1", or "balanced". */
static skald_status parse_class_weights(const char *text, training *out) {
    if (!text) return SKALD_OK;
    if (strcmp(text, "balanced") == 0) {
        out->data.balanced = true;
        return SKALD_OK;
    }
    uint32_t count = 0;
    for (const char *at = text; *at;) {
        char *end;
        double label = strtod(at, &end), weight = 0;
        bool ok = end != at && *end == '=' && isfinite(label);
        if (ok) {
            at = end + 1;
            weight = strtod(at, &end);
            ok = end != at && (*end == ',' || *end == '\0') && isfinite(weight) && weight >= 0;
        }
        if (!ok || count == MAX_CLASS_WEIGHTS)
            return skald_fail(SKALD_EINVAL,
                              "--class-weight %s: must be 'balanced' or LABEL=WEIGHT,... such as 1=2,-1=1", text);
        out->class_labels[count] = label;
        out->class_weights[count++] = weight;
        at = *end ? end + 1 : end;
    }
    out->data.class_weight_count = count;
    out->data.class_weight_label = out->class_labels;
    out->data.class_weight = out->class_weights;
    return SKALD_OK;
}

static skald_status resolve_stopping(const settings *s, const skald_options *given, training *out) {
    skald_train_options *t = &out->train;
    static const char *const any[] = {"target-gap", "target-decrement", "target-gradient", "target-objective",
                                      "max-passes", "max-updates",      "max-time"};
    bool said = false;
    for (size_t i = 0; i < sizeof any / sizeof *any; i++) said |= skald_options_given(given, any[i]);
    bool certificate = (s->l2 != 0 || s->l1 > 0) && !(s->nonconvex > 0);
    if (s->nonconvex > 0 && t->algo != SKALD_SYNTHESIS && !(t->algo == SKALD_SGD && s->local == 0))
        return skald_fail(SKALD_EINVAL,
                          "--nonconvex: %s does not step by it; use --algo synthesis, or sgd with --local off",
                          skald_algo_name(t->algo));
    if (s->target_gap > 0 && s->nonconvex > 0)
        return skald_fail(SKALD_EINVAL,
                          "--target-gap: with --nonconvex no gap can be certified; use --target-gradient");
    if (s->target_gap > 0 && !certificate)
        return skald_fail(SKALD_EINVAL, "--target-gap needs --l2 or --l1 above 0: without either no gap can be "
                                        "certified; use --target-gradient");
    t->target_gap = s->target_gap;
    t->target_decrement = s->target_decrement;
    t->target_gradient = s->target_gradient;
    t->max_passes = s->max_passes;
    t->max_updates = (uint64_t)s->max_updates;
    t->max_seconds = (double)s->max_time * 1e-9;
    t->has_target_objective = skald_options_given(given, "target-objective");
    t->target_objective = s->target_objective;
    t->target_tolerance = s->target_tolerance;
    t->eval_every = s->eval_every;
    t->eval_beside = s->eval_beside;
    if (!said) {
        if (certificate) t->target_gap = 1e-6;
        if (!(s->nonconvex > 0)) t->target_decrement = 1e-7;
        t->max_passes = 100;
        out->choose_passes = true;
    }
    return SKALD_OK;
}

/* Before anybody waits for anything. */
static skald_status check_trial(const settings *s) {
    skald_stragglers models;
    TRY(skald_stragglers_parse(s->straggler, &models));
    skald_status st = SKALD_OK;
    if (s->workers == 0 && (models.count || s->pace_ms))
        st = skald_fail(SKALD_EINVAL, "--straggler and --pace are for worker processes: give --workers 1 or more");
    for (uint32_t k = 0; k < models.count && s->workers > 0; k++)
        if (models.list[k].worker >= s->workers)
            st = skald_fail(SKALD_EINVAL, "--straggler: there is no worker %u, they are 0 to %d", models.list[k].worker,
                            (int)s->workers - 1);
    skald_stragglers_free(&models);
    return st;
}

static skald_status resolve_mode(const settings *s, training *out) {
    bool sync;
    TRY(skald_barrier_preset(s->mode, &sync, out->barrier_text, sizeof out->barrier_text));
    out->train.mode = sync ? SKALD_SYNC : SKALD_ASYNC;
    out->train.mode_name = s->barrier ? s->barrier : s->mode;
    const char *text = s->barrier ? s->barrier : out->barrier_text;
    if (s->barrier && strcmp(s->mode, "async") != 0)
        return skald_fail(SKALD_EINVAL, "--barrier says itself who may run: leave --mode %s away", s->mode);
    if (!*text) return s->barrier ? skald_fail(SKALD_EINVAL, "--barrier: an expression is missing") : SKALD_OK;
    skald_status st = skald_barrier_parse(text, &out->barrier);
    if (st != SKALD_OK) return skald_context(st, "--barrier");
    out->train.barrier = skald_barrier_by_rule;
    out->train.barrier_user = out->barrier;
    out->train.barrier_text = text;
    return SKALD_OK;
}

void settings_release(training *t) {
    skald_barrier_free(t->barrier);
    skald_stale_free(t->stale_rules);
    t->barrier = NULL;
    t->stale_rules = NULL;
}

static bool any_given(const skald_options *given, const char *const *names, size_t count) {
    for (size_t k = 0; k < count; k++)
        if (skald_options_given(given, names[k])) return true;
    return false;
}

/* The algorithm that was asked for, or that other options leave; else saga, until the problem is known. */
static void resolve_algo(const settings *s, const skald_options *given, training *out) {
    static const char *const steps[] = {"step",  "step-decay", "theta",     "batch",   "task-rows",
                                        "local", "stale",      "max-stale", "barrier", "eval-beside"};
    skald_algo algo = SKALD_SAGA;
    if (s->algo != CHOICE_AUTO) {
        algo = (skald_algo)(s->algo - CHOICE_FIRST);
    } else if (s->nonconvex > 0) {
        algo = SKALD_SYNTHESIS;
        out->algo_why = "--nonconvex is given";
    } else if (s->history == 1) {
        out->algo_why = "--history version is given";
    } else if (s->epoch > 0) {
        algo = SKALD_SVRG;
        out->algo_why = "--epoch is given";
    } else {
        out->choose_algo = true;
        out->stochastic = any_given(given, steps, SKALD_ARRAY_LENGTH(steps));
    }
    out->train.algo = algo;
}

void training_choose(training *t, const skald_problem *problem, uint32_t workers) {
    char loss[200] = "", algo[200] = "", limit[120] = "";
    skald_facts facts = skald_facts_of(problem, workers);
    facts.stochastic = t->stochastic;
    if (t->choose_algo) {
        skald_algo_choice c = skald_choose_algo(&facts);
        const skald_blas *blas;
        if (c.algo == SKALD_NEWTON && skald_blas_open(&blas) != SKALD_OK) {
            c.algo = SKALD_SAGA;
            snprintf(c.why, sizeof c.why, "newton would be sooner, but %s", skald_error());
        }
        t->train.algo = c.algo;
        snprintf(algo, sizeof algo, "algo %s (%s)", skald_algo_name(c.algo), c.why);
    } else if (t->algo_why) {
        snprintf(algo, sizeof algo, "algo %s (%s)", skald_algo_name(t->train.algo), t->algo_why);
    }
    const bool curved = t->train.algo == SKALD_NEWTON && t->train.target_decrement > 0;
    if (t->choose_passes && !(t->train.target_gap > 0) && !curved) {
        snprintf(limit, sizeof limit, "%g passes (no gap can be certified; --target-gradient is a target)",
                 t->train.max_passes);
    } else if (t->choose_passes) {
        t->train.max_passes = skald_choose_passes(&facts);
        char gap[40] = "", decrement[40] = "";
        if (t->train.target_gap > 0) snprintf(gap, sizeof gap, "a gap of %g, ", t->train.target_gap);
        if (curved) snprintf(decrement, sizeof decrement, "a decrement of %g, ", t->train.target_decrement);
        snprintf(limit, sizeof limit, "until %s%sor %g passes", gap, decrement, t->train.max_passes);
    }
    if (t->loss_why) snprintf(loss, sizeof loss, "loss %s (%s)", skald_loss_name(problem->objective.loss), t->loss_why);
    const char *const parts[] = {problem->chosen, loss, algo, t->place, limit};
    size_t used = 0;
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(parts); k++) {
        if (!parts[k][0]) continue;
        snprintf(t->chosen + used, sizeof t->chosen - used, "%s%s", used ? ", " : "", parts[k]);
        used = strlen(t->chosen);
    }
    t->train.chosen = t->chosen[0] ? t->chosen : NULL;
}

skald_status settings_resolve(const settings *s, const skald_options *given, const char *data_path, training *out) {
    *out = (training){0};
    out->objective =
        (skald_objective){.loss = s->loss == CHOICE_AUTO ? SKALD_SQUARED : (skald_loss)(s->loss - CHOICE_FIRST),
                          .huber_delta = s->huber_delta,
                          .l2 = s->l2,
                          .l1 = s->l1,
                          .nonconvex = s->nonconvex,
                          .intercept = s->intercept,
                          .classes = 1};
    out->data = (skald_data_options){.path = data_path,
                                     .source = {.weights_path = s->sample_weights,
                                                .index_base = s->index_base - 1,
                                                .dim = (uint32_t)s->dim,
                                                .threads = (int)(s->threads > 0 ? s->threads : 1)},
                                     .scaling = (skald_scaling)s->scale,
                                     .intercept = s->intercept,
                                     .choose_loss = s->loss == CHOICE_AUTO,
                                     .shards = (uint32_t)s->shards,
                                     .contiguous = s->contiguous,
                                     .seed = (uint64_t)s->seed};
    TRY(parse_class_weights(s->class_weight, out));
    resolve_algo(s, given, out);
    const skald_algo algo = out->train.algo;
    if (s->local == 1 && algo != SKALD_SGD && algo != SKALD_SAGA)
        return skald_fail(SKALD_EINVAL, "--local on: %s has no local steps; leave --local out, or use --algo saga",
                          skald_algo_name(algo));
    if (s->history == 1 && algo != SKALD_SAGA)
        return skald_fail(SKALD_EINVAL, "--history version: %s keeps no history of rows; use --algo saga",
                          skald_algo_name(algo));
    if (s->history == 1 && s->local == 1)
        return skald_fail(SKALD_EINVAL, "--history version: local steps keep numbers; leave --local on out");
    if (s->history == 0 && skald_options_given(given, "history-versions"))
        return skald_fail(SKALD_EINVAL, "--history-versions is for --history version");
    if (s->epoch > 0 && algo != SKALD_SVRG && algo != SKALD_SYNTHESIS)
        return skald_fail(SKALD_EINVAL, "--epoch: %s takes no full gradients; leave --epoch out, or use --algo svrg",
                          skald_algo_name(algo));
    if (algo == SKALD_SYNTHESIS && skald_options_given(given, "stale"))
        return skald_fail(SKALD_EINVAL, "--stale: synthesis needs every piece of the way whole; leave --stale out "
                                        "(--max-stale bounds how late one may come)");
    if (s->record && s->resume)
        return skald_fail(SKALD_EINVAL, "--record: a record is of a whole run; it cannot begin with --resume");
    TRY(check_trial(s));
    out->compute = (skald_compute_options){.device = s->device,
                                           .threads = (int)s->threads,
                                           .isa = s->isa,
                                           .storage = (skald_storage_kind)s->storage,
                                           .resident = (skald_resident)s->resident,
                                           .deterministic = s->deterministic};
    out->train = (skald_train_options){.algo = algo,
                                       .step = s->step,
                                       .step_decay = s->step_decay,
                                       .epoch = s->epoch,
                                       .step_rows = (uint32_t)s->batch,
                                       .task_rows = (uint32_t)s->task_rows,
                                       .local = s->local == 2 ? -1 : s->local,
                                       .theta = s->theta,
                                       .history_versions = s->history == 1 ? (uint32_t)s->history_versions : 0,
                                       .max_stale = (uint64_t)s->max_stale};
    out->train.slow_ratio = s->slow_ratio;
    TRY(resolve_mode(s, out));
    TRY(skald_stale_parse(s->stale, &out->train.stale, &out->stale_rules));
    out->train.stale_rules = out->stale_rules;
    return resolve_stopping(s, given, out);
}
