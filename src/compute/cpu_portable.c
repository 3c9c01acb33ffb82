/* CPU kernels for the instruction set every build has. */
#define SKALD_VECTOR_BYTES 16
#define SKALD_KERNELS cpu_kernels_portable
#define SKALD_ISA "portable"
#include "compute/kernels/kernels.inc"
