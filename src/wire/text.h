#ifndef SKALD_WIRE_TEXT_H
#define SKALD_WIRE_TEXT_H

#include <protobuf-c/protobuf-c.h>

/* skald_printable on every text in a message, and in those within it; of paths (fields named *path) any bytes stay that
 * are no control characters. */
void wire_tidy(ProtobufCMessage *message);

#endif
