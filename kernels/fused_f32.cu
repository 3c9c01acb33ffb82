/* The fused kernels for rows stored as f32. */
#include "kernels/pass.cuh"

const fused_choice skald_fused_f32[FUSED_CHOICES] = {direct<stored_f32, 8, 4, 2, 3, 2>(SKALD_GPU_LANES),
                                                     direct<stored_f32, 32, 4, 2, 3, 2>(SKALD_GPU_WARP),
                                                     direct<stored_f32, 32, 8, 1, 3, 2>(SKALD_GPU_WARP),
                                                     direct<stored_f32, 256, 2, 4, 2, 1>(SKALD_GPU_BLOCK),
                                                     direct<stored_f32, 512, 4, 1, 1, 1>(SKALD_GPU_BLOCK),
                                                     ring<stored_f32, 32, 8, 1, 4>(),
                                                     ring<stored_f32, 256, 2, 2, 2>(),
                                                     ring<stored_f32, 512, 4, 1, 1>()};
