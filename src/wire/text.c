/* Texts that a peer made: they end up on terminals, in logs and in JSON, and are to do no more there than be read. */
#include "wire/text.h"

#include <string.h>

#include "base/base.h"

static bool is_path(const ProtobufCFieldDescriptor *field) {
    const size_t n = strlen(field->name);
    return n >= 4 && strcmp(field->name + n - 4, "path") == 0;
}

static void tidy_field(ProtobufCMessage *m, const ProtobufCFieldDescriptor *field) {
    char *const base = (char *)m;
    if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF &&
        *(uint32_t *)(void *)(base + field->quantifier_offset) != field->id)
        return;
    void *const place = base + field->offset;
    const bool repeated = field->label == PROTOBUF_C_LABEL_REPEATED;
    const size_t count = repeated ? *(size_t *)(void *)(base + field->quantifier_offset) : 1;
    void **const list = repeated ? *(void ***)place : (void **)place;
    for (size_t k = 0; k < count; k++) {
        if (!list[k]) continue;
        if (field->type == PROTOBUF_C_TYPE_STRING)
            skald_printable(list[k], is_path(field));
        else
            wire_tidy(list[k]);
    }
}

void wire_tidy(ProtobufCMessage *m) {
    const ProtobufCMessageDescriptor *d = m->descriptor;
    for (unsigned k = 0; k < d->n_fields; k++)
        if (d->fields[k].type == PROTOBUF_C_TYPE_STRING || d->fields[k].type == PROTOBUF_C_TYPE_MESSAGE)
            tidy_field(m, &d->fields[k]);
}
