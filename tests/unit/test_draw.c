/* Batches: every row once an epoch, in the order of the permutation, whatever the cuts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"

/* Seen to fail with an epoch that began at its second row. */
static void draws_are_permutations(void **state) {
    static const size_t sizes[] = {1, 2, 3, 17, 64, 65, 1000, 4097}, cuts[] = {1, 7, 64, 100, 5000};
    (void)state;
    for (size_t s = 0; s < SKALD_ARRAY_LENGTH(sizes); s++)
        for (size_t c = 0; c < SKALD_ARRAY_LENGTH(cuts); c++) {
            const size_t n = sizes[s];
            uint32_t *whole = skald_zalloc(n, sizeof *whole), *rows = skald_zalloc(n, sizeof *rows);
            unsigned char *seen = skald_zalloc(n, 1);
            const uint64_t epoch = 3 * n;
            assert_int_equal(skald_draw(9, 2, n, epoch, n, whole), n);
            for (size_t k = 0; k < n; k++) {
                assert_true(whole[k] < n && !seen[whole[k]]);
                seen[whole[k]] = 1;
            }
            const uint64_t key = skald_mix64(9 + 0x9e3779b97f4a7c15ull * 3) ^ skald_mix64(4);
            for (size_t k = 0; k < n; k++) assert_int_equal(whole[k], skald_permute(key, n, k));
            for (size_t k = 0, got; k < n; k += got) {
                got = skald_draw(9, 2, n, epoch + k, cuts[c], rows);
                assert_int_equal(got, skald_min_size(cuts[c], n - k));
                assert_memory_equal(rows, whole + k, got * sizeof *rows);
            }
            free(whole);
            free(rows);
            free(seen);
        }
    uint32_t none = 7;
    assert_int_equal(skald_draw(9, 2, 1, 0, 0, &none), 0);
    assert_int_equal(none, 7);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(draws_are_permutations)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
