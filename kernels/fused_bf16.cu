/* The fused kernels for rows stored as bf16. */
#include "kernels/pass.cuh"

const fused_choice skald_fused_bf16[FUSED_CHOICES] = {direct<stored_bf16, 8, 2, 2, 4, 3>(SKALD_GPU_LANES),
                                                      direct<stored_bf16, 32, 2, 2, 4, 3>(SKALD_GPU_WARP),
                                                      direct<stored_bf16, 32, 4, 2, 3, 2>(SKALD_GPU_WARP),
                                                      direct<stored_bf16, 128, 2, 4, 4, 2>(SKALD_GPU_BLOCK),
                                                      direct<stored_bf16, 512, 2, 2, 1, 1>(SKALD_GPU_BLOCK),
                                                      ring<stored_bf16, 32, 4, 2, 4>(),
                                                      ring<stored_bf16, 128, 2, 2, 4>(),
                                                      ring<stored_bf16, 512, 2, 2, 1>()};
