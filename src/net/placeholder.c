extern int skald_net_placeholder;
int skald_net_placeholder;
