extern int skald_solver_placeholder;
int skald_solver_placeholder;
