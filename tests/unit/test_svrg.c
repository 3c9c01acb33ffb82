/* Solvers by gradient differences: where they arrive, with whom, and what they send for it. */
#include "harness.h"

static setup over_net(const char *path, uint32_t workers) {
    setup s = setup_default(path);
    s.workers = workers;
    s.net = skald_net_inproc();
    s.address = "inproc:svrg";
    s.train.algo = SKALD_SVRG;
    s.train.target_gap = 1e-8;
    s.train.max_passes = 1000;
    return s;
}

/* Tasks of the worker that was given a pace, and of another: workers join in any order. */
static void speeds(const skald_outcome *out, int *slow, int *other) {
    *slow = *other = 0;
    for (uint32_t k = 0; k < out->worker_count; k++)
        *(strcmp(out->workers[k].name, "w1") == 0 ? slow : other) = (int)out->workers[k].tasks;
}

/* The optimum, certified and by the reference, with 1, 4 and 16 workers, one of them slow, in both modes; and with l1
 * and a constant. */
static void svrg_arrives(void **state) {
    const uint32_t workers[] = {0, 1, 4, 16};
    for (int mode = 0; mode < 2; mode++)
        for (int k = 0; k < 4; k++)
            for (int l1 = 0; l1 < 2; l1++) {
                toy t = {960, 20, l1 ? 0.3 : 1, SKALD_LOGISTIC, false, 21};
                setup s = over_net(toy_write(&t, "svrg"), workers[k]);
                s.train.mode = (skald_mode)mode;
                s.objective.l1 = l1 ? 1e-3 : 0;
                s.data.intercept = l1;
                if (workers[k] > 1) s.pace_ms[1] = mode == SKALD_ASYNC ? 3 : l1 ? 0 : 1;
                skald_outcome out;
                must_train(&s, &out);
                int slow, other;
                speeds(&out, &slow, &other);
                const double e = excess(&s, &out);
                print_message("%2u workers %s%s: passes %.1f gap %.1e excess %.1e step %.3g b %u updates %d dropped %d "
                              "tasks %d/%d %.2f s\n",
                              workers[k], mode ? "sync" : "async", l1 ? " l1" : "", out.passes, out.last.relative_gap,
                              e, out.step, out.task_rows, (int)out.updates, (int)out.folded, slow, other, out.seconds);
                if (mode == SKALD_ASYNC && workers[k] > 1) assert_true(slow < other);
                assert_true(out.reached && out.last.relative_gap <= 1e-8);
                assert_true(e <= 1e-8 && e >= -1e-9);
                skald_outcome_free(&out);
                unlink(s.data.path);
            }
}

/* One worker, in order: the bits of the local engine, whatever the transport. */
static void one_worker_is_the_local_engine(void **state) {
    toy t = {600, 20, 1, SKALD_LOGISTIC, false, 3};
    skald_outcome out[3];
    for (int k = 0; k < 3; k++) {
        setup s = over_net(toy_write(&t, "one"), k > 0);
        if (k == 2) s.net = skald_net_grpc(), s.address = "127.0.0.1:0";
        s.train.target_gap = 0;
        s.train.max_passes = 7;
        s.data.shards = 3;
        must_train(&s, &out[k]);
        assert_memory_equal(out[k].w, out[0].w, 20 * sizeof(double));
        unlink(s.data.path);
    }
    for (int k = 0; k < 3; k++) skald_outcome_free(&out[k]);
}

/* Lost, repeated and overtaking messages: the two ends no longer agree on what a worker keeps, and it still arrives. */
static void faults_change_nothing(void **state) {
    toy t = {900, 25, 1, SKALD_LOGISTIC, false, 4};
    for (uint64_t seed = 1; seed <= 3; seed++) {
        skald_net_faults faults = {
            .seed = seed, .drop = 0.03, .duplicate = 0.05, .reorder = 0.05, .delay = 0.1, .delay_max_ns = 3000000};
        setup s = over_net(toy_write(&t, "faults"), 3);
        s.repeat_ns = 20000000;
        s.train.mode = seed == 3 ? SKALD_SYNC : SKALD_ASYNC;
        skald_net_inproc_set_faults(&faults);
        skald_outcome out;
        must_train(&s, &out);
        skald_net_inproc_set_faults(NULL);
        print_message("faults seed %d: passes %.1f gap %.1e\n", (int)seed, out.passes, out.last.relative_gap);
        assert_true(out.last.relative_gap <= 1e-8);
        skald_outcome_free(&out);
        unlink(s.data.path);
    }
}

/* ---- versions --------------------------------------------------------------------------------------------- */

static void knows_L(skald_crew *crew, void *user) {
    ((skald_problem *)crew->problem)->L =
        crew->problem->L_max / 4; /* else the first versions are those that measure it */
}

/* In rounds everything can be counted: a full gradient's model travels to each worker once, is the origin of the whole
 * epoch's tasks and the model of the first of them, and each later round brings one new model. Resending would cost
 * nearly twice as much, and does: with no room for versions, the messages are longer by what was saved before. Seen to
 * fail: with the first version put on the shelf the first to go, whoever names it (the
 * origin is sent again every few rounds); with the model published anew after a full gradient. */
static void nothing_is_sent_twice(void **state) {
    toy t = {960, 40, 1, SKALD_LOGISTIC, false, 5};
    double *w = NULL;
    uint64_t sent[3] = {0}, saved[3] = {0};
    for (int budget = 0; budget < 3; budget++) { /* as it comes; two vectors; next to nothing */
        setup s = over_net(toy_write(&t, "versions"), 3);
        s.version_budget = budget == 1 ? 2 * 40 * sizeof(double) : budget == 2 ? 1 : 0;
        s.train.mode = SKALD_SYNC;
        s.train.task_rows = 16;
        s.train.target_gap = 0;
        s.train.max_passes = 20;
        s.train.eval_every = -1;
        skald_outcome out;
        assert_int_equal(train_with(&s, &out, NULL, knows_L, NULL), SKALD_OK);
        const uint64_t bytes = 40 * sizeof(double), fulls = out.full_gradients, rounds = out.updates;
        assert_true(fulls >= 5 && rounds > 20 * (fulls - 1) / 2);
        for (int k = 0; k < 3; k++) {
            const skald_worker_row *r = &out.workers[k];
            print_message(
                "budget %llu: %llu full gradients, %llu rounds: %llu versions sent, %llu bytes saved, %llu sent\n",
                (unsigned long long)s.version_budget, (unsigned long long)fulls, (unsigned long long)rounds,
                (unsigned long long)r->versions_sent, (unsigned long long)r->bytes_saved,
                (unsigned long long)r->bytes_sent);
            /* the last: the two points of the evaluation at the end. The first round of an epoch brings nothing new. */
            if (budget < 2) {
                assert_int_equal(r->versions_sent, rounds + 1);
                assert_int_equal(r->bytes_saved, (rounds + fulls) * bytes);
            } else { /* the newest is kept all the same: an epoch's first round names it twice */
                assert_int_equal(r->versions_sent, 2 * rounds - fulls + 1);
                assert_int_equal(r->bytes_saved, 2 * fulls * bytes);
            }
            assert_int_equal(r->versions_sent * bytes + r->bytes_saved, (2 * rounds + fulls + 1) * bytes);
            sent[budget] += r->bytes_sent;
            saved[budget] += r->bytes_saved;
        }
        if (w) assert_memory_equal(w, out.w, bytes); /* nobody can tell but by the bytes */
        free(w);
        w = out.w;
        out.w = NULL;
        skald_outcome_free(&out);
        unlink(s.data.path);
    }
    free(w);
    const double less = (double)(saved[0] - saved[2]), shorter = (double)(sent[2] - sent[0]);
    print_message("%.0f bytes more were saved, %.0f fewer sent\n", less, shorter);
    assert_true(fabs(shorter / less - 1) < 0.1); /* a vector's head is four bytes, an acknowledgement may go alone */
}

/* ---- synthesis -------------------------------------------------------------------------------------------- */

/* A gradient of 1e-5 of an objective that is not convex, checked by the reference's arithmetic, with 1, 4 and 16
 * workers, one of them slow, in both modes. */
static void synthesis_arrives(void **state) {
    const uint32_t workers[] = {0, 1, 4, 16};
    for (int mode = 0; mode < 2; mode++)
        for (int k = 0; k < 4; k++)
            for (int intercept = 0; intercept < 2; intercept++) {
                if (intercept && workers[k] != 4) continue;
                toy t = {960, 20, 1, SKALD_LOGISTIC, false, 31};
                setup s = over_net(toy_write(&t, "path"), workers[k]);
                s.train.algo = SKALD_SYNTHESIS;
                s.train.mode = (skald_mode)mode;
                s.objective.l2 = 0;
                s.objective.nonconvex = 3e-2;
                s.data.intercept = intercept;
                s.train.target_gap = 0;
                s.train.target_gradient = 1e-5;
                s.train.max_passes = 2000;
                if (workers[k] > 1) s.pace_ms[1] = mode == SKALD_SYNC ? 1 : 3;
                skald_outcome out;
                must_train(&s, &out);
                int slow, other;
                speeds(&out, &slow, &other);
                skald_rows rows = {0};
                read_all(&s, &rows);
                skald_objective o = s.objective;
                o.intercept = intercept;
                double *g = calloc(rows.dim, sizeof *g), norm2 = 0, largest = 0;
                double f = reference_objective(&rows, &o, out.w, g);
                for (uint32_t j = 0; j < rows.dim; j++) norm2 += g[j] * g[j], largest = fmax(largest, fabs(out.w[j]));
                print_message(
                    "%2u workers %s%s: passes %.1f gradient %.1e F %.9f largest w %.2f step %.3g b %u updates %d "
                    "full %d dropped %d tasks %d/%d stale %d %.2f s\n",
                    workers[k], mode ? "sync" : "async", intercept ? " +b" : "", out.passes, sqrt(norm2), f, largest,
                    out.step, out.task_rows, (int)out.updates, (int)out.full_gradients, (int)out.folded, slow, other,
                    (int)out.staleness_max, out.seconds);
                assert_true(out.stop == SKALD_STOP_GRADIENT && out.reached);
                assert_true(sqrt(norm2) <= 1.01e-5 && fabs(f - out.last.objective) < 1e-9);
                assert_true(largest > 1); /* where v^2 / (1 + v^2) bends the other way */
                free(g);
                skald_rows_free(&rows);
                skald_outcome_free(&out);
                unlink(s.data.path);
            }
}

/* A crew that loses every so many differences: their results come as the coordinator reports a message it cannot use.
 */
static struct {
    const skald_crew_ops *inner;
    int every, seen, lost;
} lossy;

static skald_status lossy_next(skald_crew *crew, int64_t timeout_ns, skald_event *event) {
    TRY(lossy.inner->next(crew, timeout_ns, event));
    if (event->kind != SKALD_EVENT_RESULT || event->result->kind != SKALD_TASK_DIFFERENCE || !lossy.every)
        return SKALD_OK;
    if (++lossy.seen % lossy.every) return SKALD_OK;
    lossy.lost++;
    event->result->status = SKALD_EREFUSED;
    snprintf(event->result->error, sizeof event->result->error, "lost by the test");
    return SKALD_OK;
}

static void lose_some(skald_crew *crew, void *user) {
    static skald_crew_ops ops;
    lossy.inner = crew->ops;
    ops = *crew->ops;
    ops.next = lossy_next;
    crew->ops = &ops;
}

/* Takes a full gradient, walks about, stands still until what is out has come in, and takes another one: what the
 * pieces add up to. */
static double walked, apart;

static skald_status walk(skald_engine *e, const skald_train_options *options) {
    const uint32_t dim = e->vectors.dim;
    double *w = calloc(dim, sizeof *w), *G = calloc(dim, sizeof *G);
    int fulls = 0, moves = 0;
    walked = apart = 0;
    while (fulls < 2 && !skald_finished(e)) {
        const bool full = fulls == 0 || moves >= 400;
        skald_work work = {.task_rows = full ? 0 : 5, .step_rows = 5, .w = w, .origin = SKALD_FROM_PATH, .full = full};
        skald_merge m;
        TRY(skald_dispatch(e, &work));
        skald_status st = skald_collect(e, &m);
        if (st == SKALD_AGAIN) continue;
        TRY(st);
        for (uint32_t j = 0; j < dim && !m.full; j++) G[j] += m.weight * m.g[j];
        for (uint32_t j = 0; j < dim && m.full; j++) {
            if (fulls) walked += G[j] * G[j], apart += (m.g[j] - G[j]) * (m.g[j] - G[j]);
            G[j] = m.g[j];
        }
        fulls += m.full;
        moves++;
        for (uint32_t j = 0; j < dim && moves < 200; j++) w[j] += 0.1 * skald_normal((uint64_t)moves, j);
        TRY(skald_commit(e, &m, 1));
    }
    walked = sqrt(walked);
    apart = sqrt(apart);
    free(w);
    free(G);
    return SKALD_OK;
}

/* Each piece of the way counts once, whoever covers it, shared or not, lost or not: with rows that are all the same,
 * and so no sampling, G is the gradient to rounding as soon as everything is in. Seen to fail: with a lost piece not
 * given out again (it waits for ever), with each part counting for the whole. */
static void pieces_add_up(void **state) {
    const char *path = "/tmp/skald-test-same.svm";
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < 320; i++) fprintf(f, "1.5 1:0.5 2:-1 3:0.25\n");
    fclose(f);
    for (int losses = 0; losses < 2; losses++)
        for (int workers = 1; workers <= 4; workers += 3) {
            setup s = over_net(path, (uint32_t)workers);
            s.objective.loss = SKALD_SQUARED;
            s.train.algo = SKALD_SYNTHESIS;
            s.train.target_gap = 0;
            s.train.eval_every = -1;
            s.train.max_stale = 6;
            s.train.q_cap = -1;
            if (workers > 1) s.pace_ms[1] = 2;
            lossy.every = losses ? 7 : 0;
            lossy.seen = lossy.lost = 0;
            skald_outcome out;
            assert_int_equal(train_solver(&s, walk, &out, lose_some), SKALD_OK);
            print_message("%d workers: |G| %.3f, off by %.1e; %d pieces lost, staleness %d\n", workers, walked, apart,
                          lossy.lost, (int)out.staleness_max);
            assert_true(walked > 0.1 && apart < 1e-12);
            assert_true((lossy.lost > 0) == (losses > 0));
            assert_true(out.staleness_max <= 6); /* what was bounded at dispatch; without the bound it is 20 or more */
            skald_outcome_free(&out);
        }
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(svrg_arrives),          cmocka_unit_test(one_worker_is_the_local_engine),
        cmocka_unit_test(faults_change_nothing), cmocka_unit_test(nothing_is_sent_twice),
        cmocka_unit_test(synthesis_arrives),     cmocka_unit_test(pieces_add_up)};
    return cmocka_run_group_tests_name("svrg", tests, NULL, NULL);
}
