/* skald top: a running coordinator, live. */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "base/base.h"
#include "cli/cli.h"
#include "cli/remote.h"
#include "report/report.h"

typedef struct values {
    const char *connect;
    int64_t wait, every;
} values;

#define AT(member) offsetof(values, member)

/* clang-format off */
static const skald_option table[] = {
    {"connect", SKALD_OPTION_TEXT, AT(connect), "127.0.0.1:7700", .value = "ADDRESS",
     .help = "The coordinator: HOST:PORT or unix:/PATH; ADDRESS may also be given as the argument"},
    {"wait", SKALD_OPTION_DURATION, AT(wait), "10s", 0, 1e8, .help = "How long to wait for it at first"},
    {"every", SKALD_OPTION_DURATION, AT(every), "1s", 0.05, 3600, .help = "Time between looks"},
    {0},
};
/* clang-format on */

/* ---- the terminal ---------------------------------------------------------------------------------------- */

static struct termios before;
static bool raw;

/* Only what may be called from a signal handler: it is, should a second signal kill. */
static void restore(void) {
    static const char back[] = "\033[?25h\033[?1049l";
    if (!raw) return;
    raw = false;
    if (write(STDOUT_FILENO, back, sizeof back - 1) < 0) return;
    tcsetattr(STDIN_FILENO, TCSANOW, &before);
}

static bool take_terminal(void) {
    if (!isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &before) != 0) return false;
    struct termios t = before;
    t.c_lflag &= ~(tcflag_t)(ICANON | ECHO); /* keys at once; Ctrl-C stays a signal */
    t.c_cc[VMIN] = 0;
    t.c_cc[VTIME] = 0;
    if (tcsetattr(STDIN_FILENO, TCSANOW, &t) != 0) return false;
    raw = true;
    atexit(restore);
    fputs("\033[?1049h\033[?25l", stdout);
    return true;
}

static void window(size_t *columns, size_t *lines) {
    struct winsize size;
    *columns = 80;
    *lines = 24;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0) return;
    if (size.ws_col > 10) *columns = size.ws_col;
    if (size.ws_row > 4) *lines = size.ws_row;
}

/* Until the time is up, a key is pressed, the window changes its size or a signal comes; false: to quit. */
static bool pause_for(int64_t ns) {
    struct pollfd keys = {.fd = STDIN_FILENO, .events = POLLIN};
    if (poll(&keys, raw ? 1 : 0, (int)(ns / 1000000)) <= 0) return !*signals_stop_flag();
    char key;
    while (read(STDIN_FILENO, &key, 1) == 1)
        if (key == 'q' || key == 'Q') return false;
    if (keys.revents & (POLLHUP | POLLERR)) return false;
    return !*signals_stop_flag();
}

static void on_resize(int signal_number) {} /* it interrupts poll(), and the next look has the new size */

/* ---- what is shown ----------------------------------------------------------------------------------------- */

static void show_line(const char *text, size_t columns) {
    printf("%.*s\033[K\n", (int)columns, text);
}

static void show(const skald_status_view *v, const char *address) {
    size_t columns, lines, used = 0;
    char line[512];
    const skald_progress *p = &v->progress;
    window(&columns, &lines);
    columns--; /* the last one stays free: to erase behind it would erase it on some terminals */
    fputs("\033[H", stdout);
    snprintf(line, sizeof line, "skald top  %.100s  %s, %s, %.60s   (q quits)", address, v->state, v->algo, v->mode);
    show_line(line, columns);
    skald_progress_format(p, columns < sizeof line ? columns : sizeof line - 1, line, sizeof line);
    show_line(line, columns);
    snprintf(line, sizeof line,
             "%u workers, %llu free, %llu in flight  applied %llu scaled %llu folded %llu rejected %llu",
             v->worker_count, (unsigned long long)v->available, (unsigned long long)v->in_flight,
             (unsigned long long)v->applied, (unsigned long long)v->shortened, (unsigned long long)v->folded,
             (unsigned long long)v->rejected);
    show_line(line, columns);
    skald_top_line(NULL, columns, line, sizeof line);
    printf("\033[7m%-*.*s\033[0m\n", (int)columns, (int)columns, line);
    for (used = 4; used + 1 < lines && used - 4 < v->worker_count; used++) {
        const skald_worker_row *row = &v->workers[used - 4];
        skald_top_line(row, columns, line, sizeof line);
        printf("%s%.*s\033[0m\033[K\n", row->cause[0] ? "\033[1m" : "", (int)columns, line);
    }
    if (used - 4 < v->worker_count) printf("... and %u more\033[K", v->worker_count - (uint32_t)(used - 4));
    fputs("\033[J", stdout);
    fflush(stdout);
}

static int run(const command *self, int argc, char **argv) {
    values v = {0};
    arguments args;
    arguments_parse(self, argc, argv, &v, &args);
    if (args.word_count) v.connect = args.words[0];
    signals_install();
    sigaction(SIGWINCH, &(struct sigaction){.sa_handler = on_resize}, NULL);
    skald_status st = SKALD_OK;
    bool seen = false, ended = false;
    while (!*signals_stop_flag() && !ended) {
        char *json = NULL;
        skald_status_view view = {0};
        st = remote_status(v.connect, seen ? 2 * SKALD_NS_PER_S : v.wait, false, seen, &json);
        if (st == SKALD_OK) st = skald_status_parse(json, &view);
        free(json);
        if (st != SKALD_OK) break;
        if (!seen) take_terminal();
        seen = true;
        ended = view.ended;
        if (raw) {
            show(&view, v.connect);
        } else {
            char line[256];
            skald_progress_format(&view.progress, sizeof line - 1, line, sizeof line);
            printf("%s\n", line);
            skald_slow_list(stdout, view.workers, view.worker_count, 8);
            fflush(stdout);
        }
        skald_status_view_free(&view);
        if (!ended && !pause_for(v.every)) break;
    }
    restore();
    if (st != SKALD_OK && seen) { /* it has gone: what there was to see has been seen */
        fprintf(stderr, "skald top: the coordinator has left\n");
        st = SKALD_OK;
    } else if (ended) {
        fprintf(stderr, "skald top: the run has ended\n");
    }
    arguments_free(&args);
    return st == SKALD_OK ? EXIT_DONE : report_failure(self);
}

const command command_top = {
    .name = "top",
    .words = "[ADDRESS]",
    .summary = "watch a running coordinator and its workers, live",
    .about = "Shows the run of the coordinator at ADDRESS and what each worker does, anew every second. q quits. Where "
             "standard output is no terminal: a line a look, and the workers that are slow.",
    .notes = "For example:\n\n"
             "  skald top node1:7700\n"
             "  skald top unix:/run/skald.sock --every 0.2s\n\n"
             "The README says what the columns mean.\n\n",
    .table = table,
    .most_words = 1,
    .run = run,
};
