#include "skald/solver.h"

skald_solver skald_solver_of(skald_algo algo) {
    switch (algo) {
    case SKALD_SGD:
        return skald_sgd;
    case SKALD_SAGA:
        return skald_saga;
    case SKALD_SVRG:
        return skald_svrg;
    case SKALD_SYNTHESIS:
        return skald_synthesis;
    case SKALD_NEWTON:
        return skald_newton;
    }
    return NULL;
}
