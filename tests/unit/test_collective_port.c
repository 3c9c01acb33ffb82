/* The collective port, every adapter by the same script: threads of this process, and NCCL (emulated, or what
 * SKALD_NCCL and SKALD_CUDA_PLUGIN name) with a process a rank, one of which is killed. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/base.h"
#include "skald/collective.h"
#include "skald/compute.h"

enum { RANKS = 3, LONG = 20000, ROUNDS = 20, GROUPS = 3 };

/* What the ranks share besides the group; in memory that processes share too. */
typedef struct shared {
    atomic_int named[GROUPS], passed;
    uint8_t id[GROUPS][SKALD_COLLECTIVE_ID];
    uint64_t hash[RANKS]; /* of the sums */
    int line[RANKS];      /* where its script failed; 0: nowhere */
    char why[RANKS][600];
} shared;

typedef struct seat {
    const skald_collective_ops *ops;
    shared *s;
    uint32_t rank, device;
    bool process;
} seat;

static void sleep_ms(int ms) {
    usleep((useconds_t)ms * 1000);
}

/* Rank 0 names the group, the others wait for the name. */
static skald_status meet(const seat *t, int group) {
    if (t->rank == 0) {
        TRY(t->ops->make_id(t->s->id[group]));
        atomic_store(&t->s->named[group], 1);
    }
    for (int k = 0; k < 20000 && !atomic_load(&t->s->named[group]); k++) sleep_ms(1);
    return SKALD_OK;
}

static skald_status impatient(void *user) {
    int64_t *until = user;
    return skald_now_ns(skald_clock_system()) < *until ? SKALD_OK : skald_fail(SKALD_ETIMEOUT, "enough");
}

#define EXPECT(condition)                                                                                              \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            t->s->line[t->rank] = __LINE__;                                                                            \
            snprintf(t->s->why[t->rank], sizeof t->s->why[0], "%s", skald_error());                                    \
            goto out;                                                                                                  \
        }                                                                                                              \
    } while (0)

static void script(const seat *t) {
    int64_t until = skald_now_ns(skald_clock_system()) + 60 * SKALD_NS_PER_S;
    skald_collective_options o = {
        .rank = t->rank, .size = RANKS, .device = t->device, .waiting = impatient, .user = &until};
    skald_collective *c = NULL;
    double *x = skald_alloc(LONG, sizeof *x), flag = t->rank == 1, y = t->rank;
    const skald_stretch both[2] = {{x, LONG, false}, {&flag, 1, false}}, one = {&y, 1, false};

    /* sums: right, of the same bits everywhere, in place, several stretches at once */
    EXPECT(meet(t, 0) == SKALD_OK);
    EXPECT(t->ops->open(t->s->id[0], &o, &c) == SKALD_OK);
    EXPECT(c->ops->rank(c) == t->rank && c->ops->size(c) == RANKS);
    for (int j = 0; j < LONG; j++) x[j] = skald_normal(7 + t->rank, (uint64_t)j);
    for (int k = 0; k < ROUNDS; k++) EXPECT(c->ops->sum(c, both, 2) == SKALD_OK);
    double power = 1;
    for (int k = 1; k < ROUNDS; k++) power *= RANKS;
    for (int j = 0; j < LONG; j++) {
        double expected = 0, size = 0;
        for (int r = 0; r < RANKS; r++) {
            double v = skald_normal(7 + (uint64_t)r, (uint64_t)j);
            expected += v;
            size += v < 0 ? -v : v;
        }
        double error = x[j] - expected * power;
        EXPECT((error < 0 ? -error : error) <= 1e-14 * size * power);
    }
    EXPECT(flag == power);
    t->s->hash[t->rank] = skald_hash(x, LONG * sizeof *x, 0);
    EXPECT(c->ops->broadcast(c, &one, 1, 2) == SKALD_OK && y == 2);
    EXPECT(c->ops->broadcast(c, &one, 1, RANKS) == SKALD_EINVAL);

    /* one leaves without a word: the others are told, or lose patience, and go on as a new group */
    atomic_fetch_add(&t->s->passed, 1);
    if (t->rank == 1) {
        while (atomic_load(&t->s->passed) < RANKS && impatient(&until) == SKALD_OK) sleep_ms(1); /* they have it */
        if (t->process) kill(getpid(), SIGKILL);
        goto out;
    }
    until = skald_now_ns(skald_clock_system()) + SKALD_NS_PER_S;
    skald_status st = c->ops->sum(c, both, 2);
    EXPECT(st == SKALD_ELOST || st == SKALD_ETIMEOUT);
    st = c->ops->sum(c, &one, 1);
    EXPECT(st == SKALD_ELOST || st == SKALD_ETIMEOUT); /* broken for good */
    c->ops->close(c);
    c = NULL;
    until = skald_now_ns(skald_clock_system()) + 60 * SKALD_NS_PER_S;
    o.rank = t->rank / 2;
    o.size = 2;
    EXPECT(meet(t, 1) == SKALD_OK);
    EXPECT(t->ops->open(t->s->id[1], &o, &c) == SKALD_OK);
    y = 1 + o.rank;
    EXPECT(c->ops->sum(c, &one, 1) == SKALD_OK && y == 3);
    c->ops->close(c);
    c = NULL;

    /* a group that nobody completes */
    until = skald_now_ns(skald_clock_system()) + SKALD_NS_PER_S / 2;
    o.size = 3;
    EXPECT(meet(t, 2) == SKALD_OK);
    st = t->ops->open(t->s->id[2], &o, &c);
    EXPECT(st == SKALD_ELOST || st == SKALD_ETIMEOUT);
out:
    if (c) c->ops->close(c);
    free(x);
}

static void check(const shared *s) {
    for (int r = 0; r < RANKS; r++)
        if (s->line[r]) fail_msg("rank %d failed in line %d: %s", r, s->line[r], s->why[r]);
    assert_true(s->hash[0] && s->hash[0] == s->hash[1] && s->hash[0] == s->hash[2]);
}

static void *thread_main(void *argument) {
    script(argument);
    return NULL;
}

static void threads(void **state) {
    static shared s;
    seat seats[RANKS];
    pthread_t thread[RANKS];
    for (uint32_t r = 0; r < RANKS; r++) {
        seats[r] = (seat){skald_collective_inproc(), &s, r, 0, false};
        assert_int_equal(pthread_create(&thread[r], NULL, thread_main, &seats[r]), 0);
    }
    for (uint32_t r = 0; r < RANKS; r++) pthread_join(thread[r], NULL);
    check(&s);
}

static void process_main(shared *s, uint32_t rank) {
    char device[16], version[32], card[80];
    snprintf(device, sizeof device, "cuda:%u", rank);
    const skald_compute_options options = {.device = device};
    seat t = {.s = s, .rank = rank, .process = true};
    t.ops = skald_compute_collective(&options, &t.device);
    if (!t.ops || t.ops->probe(t.device, version, card) != SKALD_OK || !card[0]) {
        s->line[rank] = __LINE__;
        snprintf(s->why[rank], sizeof s->why[rank], "%s", skald_error());
        return;
    }
    script(&t);
}

static void processes(void **state) {
    setenv("SKALD_CUDA_PLUGIN", SKALD_EMULATED_PLUGIN, 0);
    setenv("SKALD_NCCL", SKALD_EMULATED_NCCL, 0);
    setenv("SKALD_EMULATED_DEVICES", "3", 0);
    shared *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(s != MAP_FAILED);
    pid_t pids[RANKS];
    for (uint32_t r = 0; r < RANKS; r++) {
        pids[r] = fork();
        assert_true(pids[r] >= 0);
        if (pids[r] == 0) {
            process_main(s, r);
            _exit(0);
        }
    }
    for (uint32_t r = 0; r < RANKS; r++) {
        int status = 0;
        assert_int_equal(waitpid(pids[r], &status, 0), pids[r]);
        if (r == 1 && !s->line[r])
            assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        else
            assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    check(s);
    munmap(s, sizeof *s);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(processes), cmocka_unit_test(threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
