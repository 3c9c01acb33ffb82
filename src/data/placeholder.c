extern int skald_data_placeholder;
int skald_data_placeholder;
