#include "skald/objective.h"

#include <string.h>

static const char *const names[] = {"squared", "logistic", "squared-hinge", "huber", "softmax"};

const char *skald_loss_name(skald_loss loss) {
    return (unsigned)loss < 5 ? names[loss] : "unknown";
}

skald_status skald_loss_parse(const char *name, skald_loss *out) {
    for (int k = 0; k < 5; k++)
        if (strcmp(name, names[k]) == 0) {
            *out = (skald_loss)k;
            return SKALD_OK;
        }
    return skald_fail(SKALD_EINVAL, "unknown loss '%s': use squared, logistic, squared-hinge, huber or softmax", name);
}

bool skald_loss_is_binary(skald_loss loss) {
    return loss == SKALD_LOGISTIC || loss == SKALD_SQUARED_HINGE;
}

bool skald_loss_is_classifier(skald_loss loss) {
    return skald_loss_is_binary(loss) || loss == SKALD_SOFTMAX;
}

double skald_loss_value(skald_loss loss, double delta, double z, double y) {
    switch (loss) {
    case SKALD_SQUARED:
        return 0.5 * (z - y) * (z - y);
    case SKALD_LOGISTIC: {
        double m = y * z;
        return m > 0 ? log1p(exp(-m)) : -m + log1p(exp(m));
    }
    case SKALD_SQUARED_HINGE: {
        double h = 1 - y * z;
        return h > 0 ? 0.5 * h * h : 0;
    }
    case SKALD_HUBER: {
        double r = fabs(z - y);
        return r <= delta ? 0.5 * r * r : delta * (r - 0.5 * delta);
    }
    case SKALD_SOFTMAX:
        break;
    }
    return NAN;
}

double skald_loss_derivative(skald_loss loss, double delta, double z, double y) {
    switch (loss) {
    case SKALD_SQUARED:
        return z - y;
    case SKALD_LOGISTIC: {
        double m = y * z;
        return m > 0 ? -y * exp(-m) / (1 + exp(-m)) : -y / (1 + exp(m));
    }
    case SKALD_SQUARED_HINGE: {
        double h = 1 - y * z;
        return h > 0 ? -y * h : 0;
    }
    case SKALD_HUBER: {
        double r = z - y;
        return r > delta ? delta : r < -delta ? -delta : r;
    }
    case SKALD_SOFTMAX:
        break;
    }
    return NAN;
}

double skald_loss_second(skald_loss loss, double delta, double z, double y) {
    switch (loss) {
    case SKALD_SQUARED:
        return 1;
    case SKALD_LOGISTIC: {
        double e = exp(-fabs(z));
        return e / ((1 + e) * (1 + e));
    }
    case SKALD_SQUARED_HINGE:
        return y * z < 1 ? 1 : 0;
    case SKALD_HUBER:
        return fabs(z - y) <= delta ? 1 : 0;
    case SKALD_SOFTMAX:
        break;
    }
    return NAN;
}

double skald_loss_curvature(skald_loss loss) {
    switch (loss) {
    case SKALD_LOGISTIC:
        return 0.25;
    case SKALD_SOFTMAX:
        return 0.5;
    default:
        return 1;
    }
}

bool skald_loss_correct(skald_loss loss, double z, double y) {
    return skald_loss_is_binary(loss) && (z >= 0 ? 1 : -1) == (y > 0 ? 1 : -1);
}

uint32_t skald_softmax_class(uint32_t classes, const double *z) {
    uint32_t best = 0;
    for (uint32_t c = 1; c < classes; c++)
        if (z[c] > z[best]) best = c;
    return best;
}

double skald_softmax_value(uint32_t classes, const double *z, uint32_t y) {
    const uint32_t top = skald_softmax_class(classes, z);
    double rest = 0; /* the largest term is 1: what it is added to keeps its digits */
    for (uint32_t c = 0; c < classes; c++)
        if (c != top) rest += exp(z[c] - z[top]);
    return z[top] - z[y] + log1p(rest);
}

void skald_softmax(uint32_t classes, const double *z, double *p) {
    const double top = z[skald_softmax_class(classes, z)];
    double sum = 0;
    for (uint32_t c = 0; c < classes; c++) sum += p[c] = exp(z[c] - top);
    for (uint32_t c = 0; c < classes; c++) p[c] /= sum;
}
