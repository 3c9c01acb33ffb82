/* SAGA whose history is the version of the model that each row's gradient was taken at: the same algorithm as with a
 * gradient a row (a reference in doubles), with as few versions as one likes, over the net, and for a model that is not
 * linear. (That it is the same as with numbers, merge by merge, with eight workers: test_replay, either_history.) */
#include "compute/cpu.h"
#include "engine/run.h"
#include "harness.h"
#include "troupe.h"

/* ---- the reference ------------------------------------------------------------------------------------------- */

/* SAGA as the paper has it, a whole gradient kept for each row, one task after the other; rows whose version is to go
 * are taken anew at the newest. Returns how often that was. */
static uint64_t reference_saga(const setup *s, uint64_t updates, double *w) {
    skald_rows r = {0};
    read_all(s, &r);
    const uint32_t d = r.dim, V = s->train.history_versions;
    double *table = calloc(r.n * d, sizeof *table), *abar = calloc(d, sizeof *abar), *D = calloc(d, sizeof *D);
    double *models = calloc((updates + 1) * d, sizeof *models);
    uint32_t *drawn = calloc(r.n, sizeof *drawn);
    uint64_t *at = calloc(r.n, sizeof *at), position = 0, evictions = 0; /* at: 1 + the update; 0: none */
    for (uint64_t t = 0; t < updates; t++) {
        uint64_t oldest = UINT64_MAX, count = 0, model = t + 1, before = 0;
        for (size_t i = 0; i < r.n; i++)
            if (at[i] && at[i] < oldest) oldest = at[i];
        if (t) count = t + 1 - oldest; /* all since */
        const bool evict = count >= V;
        if (evict) before = oldest + count / 2, model = t, evictions++;
        size_t rows = 0;
        for (size_t i = 0; i < r.n && evict; i++)
            if (at[i] && at[i] < before) drawn[rows++] = (uint32_t)i;
        if (!evict) {
            rows = skald_draw(s->data.seed, 0, r.n, position, s->train.task_rows, drawn);
            position += rows;
            memcpy(models + model * d, w, d * sizeof *w);
        }
        const double *read = models + model * d;
        memset(D, 0, d * sizeof *D);
        for (size_t k = 0; k < rows; k++) {
            const float *x = r.x + drawn[k] * r.stride;
            double z = 0, *g = table + drawn[k] * d;
            for (uint32_t j = 0; j < d; j++) z += x[j] * read[j];
            const double c = r.s[drawn[k]] * skald_loss_derivative(s->objective.loss, 1, z, r.y[drawn[k]]);
            for (uint32_t j = 0; j < d; j++) D[j] += c * x[j] - g[j], g[j] = c * x[j];
            at[drawn[k]] = model;
        }
        for (uint32_t j = 0; j < d && !evict; j++)
            w[j] -= s->train.step * (D[j] / (double)rows + abar[j] + s->objective.l2 * w[j]);
        for (uint32_t j = 0; j < d; j++) abar[j] += D[j] / (double)r.n;
        if (evict) t--; /* no update */
    }
    free(table);
    free(abar);
    free(D);
    free(models);
    free(drawn);
    free(at);
    skald_rows_free(&r);
    return evictions;
}

/* To 1e-12, whether versions are evicted or not. Seen to fail: with a task's rows all taken for visited at the same
 * version; with rows taken anew that make a step; with the first half taken for the older. */
static void as_with_a_gradient_a_row(void **state) {
    for (int loss = SKALD_SQUARED; loss <= SKALD_SQUARED_HINGE; loss++)
        for (int k = 0; k < 4; k++) {
            toy t = {300, 12, 1, (skald_loss)loss, false, 41};
            setup s = setup_default(toy_write(&t, "reference"));
            s.objective.loss = (skald_loss)loss;
            s.data.shards = 1;
            s.train.target_gap = s.train.max_passes = 0;
            s.train.max_updates = 150;
            s.train.step = 0.5;
            s.train.task_rows = 7;
            s.train.eval_every = -1;
            s.train.audit = true;
            s.train.history_versions = (uint32_t[]){1000, 40, 7, 2}[k];
            skald_outcome out;
            must_train(&s, &out);
            double w[12] = {0}, difference = 0, norm = 0;
            const uint64_t evictions = reference_saga(&s, 150, w);
            for (int j = 0; j < 12; j++) difference += (w[j] - out.w[j]) * (w[j] - out.w[j]), norm += w[j] * w[j];
            print_message("%s, %u versions: off by %.1e, %d evictions, %u held, drift %.1e\n",
                          skald_loss_name(s.objective.loss), s.train.history_versions, sqrt(difference / norm),
                          (int)out.evictions, out.versions_held, out.audit_drift);
            assert_int_equal(out.updates, 150);
            assert_int_equal(out.evictions, evictions);
            assert_true((k > 0) == (evictions > 0) && out.versions_held <= s.train.history_versions);
            assert_true(sqrt(difference / norm) < 1e-12);
            assert_true(out.audit_drift >= 0 && out.audit_drift < 1e-12);
            skald_outcome_free(&out);
            unlink(s.data.path);
        }
}

/* ---- over the net -------------------------------------------------------------------------------------------- */

static setup over_net(const char *path, uint32_t workers, uint32_t versions) {
    setup s = setup_default(path);
    s.workers = workers;
    s.net = skald_net_inproc();
    s.address = "inproc:history";
    s.train.history_versions = versions;
    s.train.target_gap = 1e-8;
    s.train.max_passes = 3000;
    s.train.audit = true;
    return s;
}

/* The optimum, certified and by the reference, with 1, 4 and 16 workers, one of them slow, with few versions and with
 * many, in both modes; A_k is at the end what the rows and their versions say. */
static void arrives(void **state) {
    for (int mode = 0; mode < 2; mode++)
        for (int k = 0; k < 3; k++)
            for (int v = 0; v < 3; v++) {
                const uint32_t workers = (uint32_t[]){1, 4, 16}[k], versions = (uint32_t[]){2, 6, 64}[v];
                toy t = {960, 20, v == 1 ? 0.3 : 1, SKALD_LOGISTIC, false, 21};
                setup s = over_net(toy_write(&t, "history"), workers, versions);
                s.train.mode = (skald_mode)mode;
                if (workers > 1) s.pace_ms[1] = mode == SKALD_ASYNC ? 2 : 0;
                skald_outcome out;
                must_train(&s, &out);
                const double e = excess(&s, &out);
                print_message("%2u workers, %2u versions, %s: passes %.1f gap %.1e excess %.1e b %u updates %d, "
                              "evictions %d, held %u, drift %.1e, %.2f s\n",
                              workers, versions, mode ? "sync" : "async", out.passes, out.last.relative_gap, e,
                              out.task_rows, (int)out.updates, (int)out.evictions, out.versions_held, out.audit_drift,
                              out.seconds);
                assert_true(out.reached && out.last.relative_gap <= 1e-8);
                assert_true(e <= 1e-8 && e >= -1e-9);
                assert_true(out.audit_drift >= 0 && out.audit_drift < 1e-12);
                assert_true(out.versions_held <= versions && (versions > 6 || out.evictions > 0));
                skald_outcome_free(&out);
                unlink(s.data.path);
            }
}

/* Slots of one worker share its versions, and wait while room is made. */
static void threads_share_versions(void **state) {
    toy t = {1200, 20, 1, SKALD_LOGISTIC, false, 23};
    setup s = over_net(toy_write(&t, "slots"), 2, 4);
    s.threads = 3;
    skald_outcome out;
    must_train(&s, &out);
    assert_true(out.last.relative_gap <= 1e-8 && out.evictions > 0 && out.versions_held <= 4);
    assert_true(out.audit_drift < 1e-12);
    skald_outcome_free(&out);
    unlink(s.data.path);
}

/* Rounds make room or make a step: a round that did both would make none, and workers whose shards differ in size run
 * out of room one after the other. Seen to fail: with each making room when it must, in the same rounds as others'
 * steps. */
static void rounds_make_room_together(void **state) {
    toy t = {1150, 10, 1, SKALD_SQUARED, false, 8};
    setup s = over_net(toy_write(&t, "rounds"), 5, 20);
    s.objective.loss = SKALD_SQUARED;
    s.data.shards = 5;
    s.data.contiguous = true;
    s.train.mode = SKALD_SYNC;
    s.train.task_rows = 16;
    s.train.target_gap = 0;
    s.train.max_updates = 600;
    s.train.max_passes = 0;
    skald_outcome out;
    must_train(&s, &out);
    print_message("%d rounds with a step, %d without; %d evictions, held %u; shards of %d to %d rows\n",
                  (int)out.updates, (int)out.folded, (int)out.evictions, out.versions_held,
                  (int)out.workers[0].rows_held, (int)out.workers[4].rows_held);
    assert_true(out.evictions > 5 && out.versions_held <= 20 && out.audit_drift < 1e-12);
    assert_true(out.folded < 600 / 10 + 2); /* half of the versions go at a time */
    skald_outcome_free(&out);
    unlink(s.data.path);
}

/* Messages lost, repeated and overtaking. Seen to fail: with the anchor of a history by version taken from the numbers
 * (the drift). */
static void faults_change_nothing(void **state) {
    toy t = {900, 25, 1, SKALD_LOGISTIC, false, 4};
    for (uint64_t seed = 1; seed <= 3; seed++) {
        skald_net_faults faults = {
            .seed = seed, .drop = 0.03, .duplicate = 0.05, .reorder = 0.05, .delay = 0.1, .delay_max_ns = 3000000};
        setup s = over_net(toy_write(&t, "faults"), 3, 8);
        s.repeat_ns = 20000000;
        s.train.mode = seed == 3 ? SKALD_SYNC : SKALD_ASYNC;
        skald_net_inproc_set_faults(&faults);
        skald_outcome out;
        must_train(&s, &out);
        skald_net_inproc_set_faults(NULL);
        print_message("faults seed %d: passes %.1f gap %.1e drift %.1e evictions %d\n", (int)seed, out.passes,
                      out.last.relative_gap, out.audit_drift, (int)out.evictions);
        assert_true(out.last.relative_gap <= 1e-8 && out.evictions > 0 && out.versions_held <= 8);
        assert_true(out.audit_drift >= 0 && out.audit_drift < 1e-12);
        skald_outcome_free(&out);
        unlink(s.data.path);
    }
}

/* ---- a model that is not linear -------------------------------------------------------------------------------- */

/* Two parts of a row, two parts of the model: one scales the other.
 *   f_i(w) = (tanh(a_i.u) (1 + b_i.v) - y_i)^2 / 2,   w = (u, v)
 *   grad f_i = e (1 - h^2) (1 + b.v) a_i, e h b_i     h = tanh(a.u), e = h (1 + b.v) - y
 * which is two numbers times two vectors, and no number times the row. The CPU backend keeps the rows. */
static void unit_gradient(const cpu_shard *s, uint32_t dim, size_t i, const double *w, double sign, double *g,
                          skald_sums *sums) {
    const uint32_t half = dim / 2;
    const float *x = s->rows.x + i * s->rows.stride;
    double p = 0, q = 1;
    for (uint32_t j = 0; j < half; j++) p += x[j] * w[j];
    for (uint32_t j = half; j < dim; j++) q += x[j] * w[j];
    const double h = tanh(p), e = h * q - s->rows.y[i], weight = sign * s->rows.s[i];
    for (uint32_t j = 0; g && j < half; j++) g[j] += weight * e * (1 - h * h) * q * x[j];
    for (uint32_t j = half; g && j < dim; j++) g[j] += weight * e * h * x[j];
    if (!sums) return;
    sums->loss += s->rows.s[i] * e * e / 2;
    sums->rows++;
}

static skald_status unit_difference(skald_compute *c, skald_shard *shard, const skald_batch *batch, const double *w,
                                    const double *u, double *g, skald_sums *sums) {
    memset(g, 0, c->dim * sizeof *g);
    memset(sums, 0, sizeof *sums);
    for (size_t k = 0; k < batch->count; k++) {
        unit_gradient((cpu_shard *)shard, c->dim, batch->rows[k], w, 1, g, sums);
        if (u) unit_gradient((cpu_shard *)shard, c->dim, batch->rows[k], u, -1, g, NULL);
    }
    return SKALD_OK;
}

static skald_status unit_batch(skald_compute *c, skald_shard *shard, const skald_batch *batch, const double *w,
                               double *g, skald_sums *sums) {
    return unit_difference(c, shard, batch, w, NULL, g, sums);
}

static skald_status unit_objective(skald_compute *c, skald_shard *shard, uint32_t points, const double *const *w,
                                   double *const *g, bool keep, skald_sums *sums) {
    const cpu_shard *s = (const cpu_shard *)shard;
    for (uint32_t p = 0; p < points; p++) {
        sums[p] = (skald_sums){0};
        if (g[p]) memset(g[p], 0, c->dim * sizeof(double));
        for (size_t i = 0; i < s->rows.n; i++) unit_gradient(s, c->dim, i, w[p], 1, g[p], &sums[p]);
    }
    return SKALD_OK;
}

/* The most versions that a worker's tables were at, as its tasks were given; each has one shard. */
static struct {
    const skald_crew_ops *inner;
    uint32_t most;
    uint64_t commits, version; /* of the newest model */
} counted;

static skald_status counted_submit(skald_crew *crew, uint32_t worker, const skald_task *t) {
    TRY(counted.inner->submit(crew, worker, t));
    const skald_history *h = t->shard == SKALD_ALL_SHARDS ? NULL : ((troupe *)crew)->histories[t->shard];
    if (t->model && t->by_version && t->model->commits >= counted.commits) {
        if (t->model->commits == counted.commits && counted.version) assert_int_equal(t->model->id, counted.version);
        counted.commits = t->model->commits;
        counted.version = t->model->id;
    }
    if (h && skald_history_count(h) > counted.most) counted.most = skald_history_count(h);
    return SKALD_OK;
}

/* A gradient of 1e-9, asynchronously, with no more versions at a worker than allowed, counted in its tables. Seen to
 * fail: with the oldest version told wrong by one (the tables grow); with versions never let go; with a model published
 * anew after a result that made no step. */
static void not_linear(void **state) {
    for (uint32_t versions = 3; versions <= 12; versions *= 4) {
        toy t = {480, 12, 1, SKALD_SQUARED, false, 51};
        setup s = setup_default(toy_write(&t, "unit"));
        s.objective.loss = SKALD_SQUARED;
        s.objective.l2 = 1e-2;
        s.data.shards = 4;
        troupe *crew = troupe_open(&s.data, &s.objective, 4, versions);
        skald_compute_ops unit = *crew->compute->ops;
        unit.gradient = unit_batch;
        unit.difference = unit_difference;
        unit.objective = unit_objective;
        crew->compute->ops = &unit;
        skald_crew_ops ops = *crew->crew.ops;
        counted.most = 0;
        counted.commits = counted.version = 0;
        counted.inner = crew->crew.ops;
        ops.submit = counted_submit;
        crew->crew.ops = &ops;
        s.train.target_gap = 0;
        s.train.target_gradient = 1e-9;
        s.train.max_passes = 5000;
        s.train.step = 0.2;
        s.train.task_rows = 8;
        s.train.history_versions = versions;
        s.train.audit = true;
        skald_outcome out;
        if (skald_train(&crew->crew, skald_saga, &s.train, skald_clock_system(), NULL, NULL, &out) != SKALD_OK)
            fail_msg("%s", skald_error());
        double norm = 0;
        for (int j = 0; j < 12; j++) norm += out.w[j] * out.w[j];
        print_message("%u versions: passes %.1f gradient %.1e |w| %.2f, %d updates, %d evictions, %u kept, drift %.1e, "
                      "stale %d\n",
                      versions, out.passes, out.last.gradient_norm, sqrt(norm), (int)out.updates, (int)out.evictions,
                      counted.most, out.audit_drift, (int)out.staleness_max);
        assert_true(out.stop == SKALD_STOP_GRADIENT && sqrt(norm) > 0.1 && out.staleness_max > 4);
        assert_true(out.evictions > 0 && counted.most <= versions && counted.most > versions / 2);
        assert_true(out.audit_drift >= 0 && out.audit_drift < 1e-12);
        skald_outcome_free(&out);
        crew->crew.ops->destroy(&crew->crew, SKALD_OK, "done");
        unlink(s.data.path);
    }
}

/* A task at the version that a worker had last, which nobody else has any more: it stays that worker's. Seen to fail:
 * with the old one let go before the new one is held, it was recycled, and then freed twice. */
static void the_newest_again(void **state) {
    skald_train_options options = {.history_versions = 4};
    skald_member_state member = {0};
    skald_ledger_entry entry = {0};
    skald_run run = {.options = &options, .members = &member, .size = 1, .ledger = {.entries = &entry, .count = 1}};
    assert_int_equal(skald_versions_create(NULL, 3, 1, &run.versions), SKALD_OK);
    const double w[3] = {1, 2, 3};
    const double *vectors[1] = {w};
    skald_version *v = skald_versions_publish_host(run.versions, 1, vectors, 1);
    assert_non_null(v);
    const skald_task task = {.kind = SKALD_TASK_SAGA, .model = v, .by_version = true};
    assert_int_equal(skald_eviction_issued(&run, 0, &task), SKALD_OK);
    skald_version_unref(v);
    member.held_count = 0; /* no row is at it */
    assert_int_equal(skald_eviction_issued(&run, 0, &task), SKALD_OK);
    skald_version *other = skald_versions_publish_host(run.versions, 2, vectors, 1);
    assert_ptr_not_equal(other, v);
    assert_ptr_equal(member.newest, v);
    skald_version_unref(other);
    skald_eviction_leave(&run, 0);
    skald_versions_destroy(run.versions);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_with_a_gradient_a_row), cmocka_unit_test(arrives),
        cmocka_unit_test(threads_share_versions),   cmocka_unit_test(rounds_make_room_together),
        cmocka_unit_test(faults_change_nothing),

        cmocka_unit_test(the_newest_again),         cmocka_unit_test(not_linear)};
    return cmocka_run_group_tests_name("history", tests, NULL, NULL);
}
