extern int skald_worker_placeholder;
int skald_worker_placeholder;
