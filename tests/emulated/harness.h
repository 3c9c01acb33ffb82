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

#define CHECK(call) assert_int_equal(call, cudaSuccess)
