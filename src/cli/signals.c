#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "cli/cli.h"

/* A signal handler can reach nothing else: the one piece of global state. */
static atomic_int stop_flag;
static volatile sig_atomic_t asked, watching;

static void on_stop(int signal_number) {
    if (asked) {
        signal(signal_number, SIG_DFL);
        raise(signal_number);
    }
    asked = signal_number;
    stop_flag = 1;
}

static void on_child(int signal_number) {
    (void)signal_number;
    if (watching) stop_flag = 1;
}

static void handle(int signal_number, void (*handler)(int)) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART | (signal_number == SIGCHLD ? SA_NOCLDSTOP : 0);
    sigaction(signal_number, &action, NULL);
}

void signals_install(void) {
    handle(SIGINT, on_stop);
    handle(SIGTERM, on_stop);
    handle(SIGCHLD, on_child);
    signal(SIGPIPE, SIG_IGN);
}

void signals_ignore_interrupt(void) {
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
}

const atomic_int *signals_stop_flag(void) {
    return &stop_flag;
}

void signals_watch_children(bool on) {
    watching = on;
    if (!on) stop_flag = asked != 0;
}

bool signals_asked(void) {
    return asked != 0;
}

bool signals_terminated(void) {
    return asked == SIGTERM;
}
