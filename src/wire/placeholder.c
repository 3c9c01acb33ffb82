extern int skald_wire_placeholder;
int skald_wire_placeholder;
