extern int skald_engine_placeholder;
int skald_engine_placeholder;
