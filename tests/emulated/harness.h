// What the emulated device's own tests share.
#pragma once

#include "control.h"
#include "device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
extern "C" {
#include <cmocka.h>
}

#ifdef __SANITIZE_THREAD__
// Many short processes: without the second each waits for reports at its end.
extern "C" __attribute__((visibility("default"))) const char *__tsan_default_options(void);
extern "C" const char *__tsan_default_options(void) {
    return "atexit_sleep_ms=0";
}
#endif

#define CHECK(call) assert_int_equal(call, cudaSuccess)
