/* The fused kernels for rows stored as u8. */
#include "kernels/pass.cuh"

const fused_choice skald_fused_u8[FUSED_CHOICES] = {direct<stored_u8, 8, 1, 2, 4, 4>(SKALD_GPU_LANES),
                                                    direct<stored_u8, 32, 1, 2, 4, 4>(SKALD_GPU_WARP),
                                                    direct<stored_u8, 32, 2, 2, 3, 2>(SKALD_GPU_WARP),
                                                    direct<stored_u8, 128, 1, 4, 4, 3>(SKALD_GPU_BLOCK),
                                                    direct<stored_u8, 512, 1, 2, 1, 1>(SKALD_GPU_BLOCK),
                                                    ring<stored_u8, 32, 2, 2, 3>(),
                                                    ring<stored_u8, 128, 1, 4, 4>(),
                                                    ring<stored_u8, 512, 1, 2, 1>()};
