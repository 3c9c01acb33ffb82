extern int skald_report_placeholder;
int skald_report_placeholder;
