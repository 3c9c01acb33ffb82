/* Curvature of rows in host memory at a model: what skald_metric_measure wants to know about a sample. All in double,
 * in the calling thread; nothing allocates. */
#ifndef SKALD_CURVATURE_ROWS_H
#define SKALD_CURVATURE_ROWS_H

#include "skald/data.h"
#include "skald/objective.h"

/* z[i - begin] = x_i . w for rows begin <= i < end, w of rows->dim entries. Softmax: z[(i - begin) C + c], w [class]
 * [column]. `classes`: 1 for all but softmax. */
void skald_curvature_margins(const skald_rows *rows, size_t begin, size_t end, uint32_t classes, const double *w,
                             double *z);

/* g += sum_i sum_c coefficient[i C + c] x_i, into class c's part. */
void skald_curvature_gradient(const skald_rows *rows, uint32_t classes, const double *coefficient, double *g);

/* h[k] = scale s_k phi''(z_k, y_k) for `count` rows; y, s: rows->y + begin, rows->s + begin. scale: 1/m, say, of the
 * whole sample. phi'' as it is: 0 where squared hinge and huber are flat. Not for softmax. */
void skald_curvature_second(const skald_objective *objective, size_t count, const double *z, const double *y,
                            const double *s, double scale, double *h);

/* Softmax: h[k] = scale s_k, and z becomes p (count x classes), in place. */
void skald_curvature_softmax(uint32_t classes, size_t count, const double *s, double scale, double *z, double *h);

#endif
