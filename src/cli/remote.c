#include "cli/remote.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "skald/net.h"
#include "wire/wire.h"

/* Sends `request` and opens the answer; on success the frame and env are the caller's. */
static skald_status call(const char *address, const skald_net_security *security, int64_t wait_ns, skald_method method,
                         const Skald__V1__Frame *request, skald_wire_env **env, skald_frame **frame) {
    skald_wire_message message = {0};
    skald_net_options options = {.security = security};
    *env = NULL;
    *frame = NULL;
    TRY(skald_wire_pack(request, NULL, 0, NULL, &message));
    skald_status st =
        skald_net_grpc()->call(address, &options, method, message.segments, message.count, wait_ns, frame);
    skald_wire_message_release(&message);
    if (st == SKALD_OK) st = skald_wire_env_create(env);
    if (st == SKALD_OK) st = skald_wire_open(*env, *frame);
    if (st != SKALD_OK) {
        skald_wire_env_destroy(*env);
        skald_frame_release(*frame);
    }
    return st;
}

static skald_status wrong_answer(const char *address) {
    return skald_fail(SKALD_EPEER, "%s: the answer is not what was asked for; is it a skald coordinator?", address);
}

/* The JSON of a status reply; frees the answer. */
static skald_status take_json(const char *address, skald_wire_env *env, skald_frame *frame, char **json) {
    const Skald__V1__Frame *answer = skald_wire_body(env);
    skald_status st = SKALD_OK;
    if (answer->body_case != SKALD__V1__FRAME__BODY_STATUS_REPLY || !answer->status_reply->json)
        st = wrong_answer(address);
    else if (!(*json = strdup(answer->status_reply->json)))
        st = skald_fail(SKALD_ENOMEM, "out of memory");
    skald_wire_env_destroy(env);
    skald_frame_release(frame);
    return st;
}

skald_status remote_status(const char *address, const skald_net_security *security, int64_t wait_ns, bool audit,
                           bool quiet, char **json) {
    Skald__V1__StatusRequest body = SKALD__V1__STATUS_REQUEST__INIT;
    Skald__V1__Frame request = SKALD__V1__FRAME__INIT;
    body.audit = audit;
    request.body_case = SKALD__V1__FRAME__BODY_STATUS_REQUEST;
    request.status_request = &body;
    skald_wire_env *env;
    skald_frame *frame;
    /* who waits for longer than it takes to wonder is told for what */
    const int64_t second = 1000000000, first = wait_ns < second ? wait_ns : second;
    skald_status tried = call(address, security, first, SKALD_METHOD_STATUS, &request, &env, &frame);
    if ((tried == SKALD_EUNAVAILABLE || tried == SKALD_ETIMEOUT) && wait_ns > first) {
        if (tried == SKALD_EUNAVAILABLE && !quiet)
            fprintf(stderr, "skald: no coordinator at %s yet; waiting for it up to %.3g s\n", address,
                    (double)wait_ns * 1e-9);
        tried = call(address, security, wait_ns - first, SKALD_METHOD_STATUS, &request, &env, &frame);
    }
    if (tried == SKALD_EUNAVAILABLE)
        return skald_fail(tried,
                          "no coordinator at %s within %.3g s: is it running there? --wait says how long to wait",
                          address, (double)wait_ns * 1e-9);
    TRY(tried);
    return take_json(address, env, frame, json);
}

skald_status remote_drain(const char *address, const skald_net_security *security, int64_t wait_ns, const char *worker,
                          char **json) {
    Skald__V1__DrainRequest body = SKALD__V1__DRAIN_REQUEST__INIT;
    Skald__V1__Frame request = SKALD__V1__FRAME__INIT;
    body.worker = (char *)worker;
    request.body_case = SKALD__V1__FRAME__BODY_DRAIN_REQUEST;
    request.drain_request = &body;
    skald_wire_env *env;
    skald_frame *frame;
    TRY(call(address, security, wait_ns, SKALD_METHOD_DRAIN, &request, &env, &frame));
    return take_json(address, env, frame, json);
}

skald_status remote_fetch_model(const char *address, const skald_net_security *security, int64_t wait_ns,
                                remote_model *out) {
    Skald__V1__FetchModelRequest body = SKALD__V1__FETCH_MODEL_REQUEST__INIT;
    Skald__V1__Frame request = SKALD__V1__FRAME__INIT;
    *out = (remote_model){0};
    request.body_case = SKALD__V1__FRAME__BODY_FETCH_MODEL_REQUEST;
    request.fetch_model_request = &body;
    skald_wire_env *env;
    skald_frame *frame;
    TRY(call(address, security, wait_ns, SKALD_METHOD_FETCH_MODEL, &request, &env, &frame));
    const Skald__V1__Frame *answer = skald_wire_body(env);
    skald_status st = SKALD_OK;
    if (answer->body_case != SKALD__V1__FRAME__BODY_MODEL) {
        st = wrong_answer(address);
    } else if (skald_wire_vectors(env) > 0) {
        out->dim = answer->model->dim;
        out->version = answer->model->version;
        if (skald_wire_vector_bytes(env, 0) != (size_t)out->dim * sizeof(double)) /* before believing dim */
            st = wrong_answer(address);
        else if (!(out->w = malloc((size_t)out->dim * sizeof(double) + 1)))
            st = skald_fail(SKALD_ENOMEM, "out of memory");
        else
            st = skald_wire_doubles(env, 0, out->w, out->dim);
    }
    if (st != SKALD_OK) {
        free(out->w);
        *out = (remote_model){0};
    }
    skald_wire_env_destroy(env);
    skald_frame_release(frame);
    return st;
}
