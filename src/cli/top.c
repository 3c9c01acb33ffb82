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
#include "cli/security.h"
#include "report/report.h"

typedef struct values {
    const char *connect;
    int64_t wait, every;
    security security;
} values;

#define AT(member) offsetof(values, member)

/* clang-format off */
static const skald_option table[] = {
    {"connect", SKALD_OPTION_TEXT, AT(connect), "127.0.0.1:7700", .value = "ADDRESS",
     .help = "The coordinator: HOST:PORT or unix:/PATH; ADDRESS may also be given as the argument"},
    {"wait", SKALD_OPTION_DURATION, AT(wait), "10s", 0, 1e8, .help = "How long to wait for it, at first and when it has gone"},
    {"every", SKALD_OPTION_DURATION, AT(every), "1s", 0.05, 3600, .help = "Time between looks"},
    SECURITY_OPTIONS,
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

static void on_resize(int signal_number) {} /* it interrupts poll(), and the next picture has the new size */

/* ---- keys -------------------------------------------------------------------------------------------------- */

typedef struct screen {
    skald_top_key key;
    bool down, help, typing, quit;
    uint32_t first; /* rows scrolled away */
    char filter[40];
    size_t page; /* rows that fit */
} screen;

static void sort_by(screen *s, skald_top_key key) {
    /* the largest first, but for what is read like a list; again: the other way round */
    s->down = s->key == key ? !s->down : key > SKALD_TOP_STATE;
    s->key = key;
    s->first = 0;
}

static void scroll(screen *s, int64_t by) {
    const int64_t to = (int64_t)s->first + by;
    s->first = to < 0 ? 0 : (uint32_t)to; /* too far is seen to when it is drawn */
}

static void on_typed(screen *s, char key) {
    const size_t used = strlen(s->filter);
    if (key == '\n' || key == '\r')
        s->typing = false;
    else if ((key == 127 || key == 8) && used)
        s->filter[used - 1] = '\0';
    else if ((unsigned char)key >= ' ' && key != 127 && used + 1 < sizeof s->filter)
        s->filter[used] = key, s->filter[used + 1] = '\0';
    s->first = 0;
}

static void on_key(screen *s, char key) {
    skald_top_key by = s->key;
    if (s->typing) {
        on_typed(s, key);
    } else if (skald_top_letter(key, &by)) {
        sort_by(s, by);
    } else {
        switch (key) {
        case 'q':
        case 'Q':
            s->quit = true;
            break;
        case '/':
            s->typing = true;
            s->filter[0] = '\0';
            break;
        case '<':
        case '>':
            s->key = (skald_top_key)((s->key + (key == '>' ? 1 : SKALD_TOP_KEYS - 1)) % SKALD_TOP_KEYS);
            break;
        case 'r':
            s->down = !s->down;
            break;
        case 'j':
        case 'k':
            scroll(s, key == 'j' ? 1 : -1);
            break;
        case 'g':
            s->first = 0;
            break;
        case 'h':
        case '?':
            s->help = !s->help;
            break;
        }
    }
}

/* Escape alone ends the filter; arrows and page keys come as sequences, all in one read. */
static size_t on_escape(screen *s, const char *keys, size_t count) {
    if (count < 3 || (keys[1] != '[' && keys[1] != 'O')) {
        s->filter[0] = '\0';
        s->typing = s->help = false;
        return 1;
    }
    size_t length = 2;
    while (length < count && (unsigned char)keys[length] < '@') length++;
    const char what = length < count ? keys[length] : '~';
    if (what == 'A' || what == 'B') scroll(s, what == 'B' ? 1 : -1);
    if (what == '~' && (keys[2] == '5' || keys[2] == '6'))
        scroll(s, keys[2] == '6' ? (int64_t)s->page : -(int64_t)s->page);
    if (what == 'H') s->first = 0;
    return length < count ? length + 1 : count;
}

/* Until the time is up (true), or a key was pressed or the window changed its size (false). */
static bool pause_for(screen *s, int64_t ns) {
    struct pollfd keys = {.fd = STDIN_FILENO, .events = POLLIN};
    const int ready = poll(&keys, raw ? 1 : 0, ns > 0 ? (int)(ns / 1000000) : 0);
    if (ready == 0) return true;
    if (ready < 0) return !raw;
    char typed[64];
    const ssize_t count = read(STDIN_FILENO, typed, sizeof typed);
    for (ssize_t k = 0; k < count;) {
        if (typed[k] == '\033')
            k += (ssize_t)on_escape(s, typed + k, (size_t)(count - k));
        else
            on_key(s, typed[k++]);
    }
    if (keys.revents & (POLLHUP | POLLERR)) s->quit = true;
    return false;
}

/* ---- what is shown ----------------------------------------------------------------------------------------- */

static const char *const help_lines[] = {
    "n i t s m p w x   sort by name, state, tasks, stale, task ms, p95, wait, xMED",
    "#                 as they joined;  the same key again: the other way round",
    "< >  r            the column before or after;  reverse",
    "/                 only workers with this in name, device, state, cause; Esc: all",
    "arrows j k PgUp PgDn g   scroll",
    "h ?               this help, on and off",
    "q                 quit",
};

static void show_line(const char *text, size_t columns) {
    printf("%.*s\033[K\n", (int)columns, text);
}

static void show_bottom(const screen *s, size_t columns, uint32_t shown, uint32_t kept, uint32_t all) {
    char line[256], place[64] = "", filter[64] = "";
    if (s->typing)
        snprintf(line, sizeof line, "filter: %s_   (Enter: keep, Esc: all workers)", s->filter);
    else {
        if (shown && shown < kept) snprintf(place, sizeof place, "  %u-%u", s->first + 1, s->first + shown);
        if (s->filter[0]) snprintf(filter, sizeof filter, "'%s' %u of %u", s->filter, kept, all);
        snprintf(line, sizeof line, "q quit  h help  <> sort: %s%s  r reverse  / filter %s%s", skald_top_title(s->key),
                 s->down ? " down" : " up", filter, place);
    }
    printf("\033[7m%-*.*s\033[0m", (int)columns, (int)columns, line);
}

static void show(screen *s, const skald_status_view *v, const char *address) {
    size_t columns, lines, used = 4;
    char line[512];
    const skald_progress *p = &v->progress;
    window(&columns, &lines);
    columns--; /* the last one stays free: to erase behind it would erase it on some terminals */
    fputs("\033[H", stdout);
    snprintf(line, sizeof line, "skald top  %.100s  %s, %s, %.60s", address, v->state, v->algo, v->mode);
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

    uint32_t *order = malloc((v->worker_count + 1) * sizeof *order), shown = 0;
    const uint32_t kept = order ? skald_top_order(v->workers, v->worker_count, s->key, s->down, s->filter, order) : 0;
    s->page = lines > 6 ? lines - 5 : 1;
    if (s->first + s->page > kept) s->first = kept > s->page ? kept - (uint32_t)s->page : 0;
    if (s->help) {
        for (size_t k = 0; k < SKALD_ARRAY_LENGTH(help_lines) && used + 1 < lines; k++, used++)
            show_line(help_lines[k], columns);
    } else {
        for (; used + 1 < lines && s->first + shown < kept; used++, shown++) {
            const skald_worker_row *row = &v->workers[order[s->first + shown]];
            skald_top_line(row, columns, line, sizeof line);
            printf("%s%.*s\033[0m\033[K\n", row->cause[0] ? "\033[1m" : "", (int)columns, line);
        }
    }
    free(order);
    fputs("\033[J", stdout);
    printf("\033[%zu;1H", lines);
    show_bottom(s, columns, shown, kept, v->worker_count);
    fflush(stdout);
}

/* Shows the view until the next look is due: anew at each key. */
static void watch(screen *s, const skald_status_view *view, const char *address, int64_t every_ns) {
    const int64_t until = skald_now_ns(skald_clock_system()) + every_ns;
    for (bool up = false; !up && !s->quit && !*signals_stop_flag();) {
        if (raw) show(s, view, address);
        up = view->ended || pause_for(s, until - skald_now_ns(skald_clock_system()));
    }
}

static int run(const command *self, int argc, char **argv) {
    values v = {0};
    arguments args;
    arguments_parse(self, argc, argv, &v, &args);
    if (args.word_count) v.connect = args.words[0];
    signals_install();
    sigaction(SIGWINCH, &(struct sigaction){.sa_handler = on_resize}, NULL);
    secrets files;
    skald_status st = secrets_read(&v.security, &files);
    bool seen = false, gone = false;
    int64_t heard = 0;
    screen look = {0};
    skald_status_view view = {0};
    while (st == SKALD_OK && !*signals_stop_flag() && !view.ended && !look.quit) {
        char *json = NULL;
        skald_status_view next = {0};
        st = remote_status(v.connect, &files.net, seen ? 2 * SKALD_NS_PER_S : v.wait, false, seen, &json);
        if (st == SKALD_OK) st = skald_status_parse(json, &next);
        free(json);
        const bool was_gone = gone;
        gone = st != SKALD_OK;
        if (!gone) {
            if (!seen) take_terminal();
            seen = true;
            heard = skald_now_ns(skald_clock_system());
            skald_status_view_free(&view);
            view = next;
        } else if (!seen || skald_now_ns(skald_clock_system()) - heard >= v.wait) {
            break;
        } else { /* it may be started again: its workers wait for that, too */
            st = SKALD_OK;
            snprintf(view.state, sizeof view.state, "it does not answer");
        }
        if (!raw && gone && !was_gone) printf("%s does not answer\n", v.connect);
        if (!raw && !gone) {
            char line[256];
            skald_progress_format(&view.progress, sizeof line - 1, line, sizeof line);
            printf("%s\n", line);
            skald_slow_list(stdout, view.workers, view.worker_count, 8);
        }
        if (!raw) fflush(stdout);
        watch(&look, &view, v.connect, v.every);
    }
    restore();
    secrets_free(&files);
    if (st != SKALD_OK && seen) { /* it has gone: what there was to see has been seen */
        fprintf(stderr, "skald top: the coordinator has left\n");
        st = SKALD_OK;
    } else if (view.ended) {
        fprintf(stderr, "skald top: the run has ended\n");
    }
    skald_status_view_free(&view);
    arguments_free(&args);
    return st == SKALD_OK ? EXIT_DONE : report_failure(self);
}

const command command_top = {
    .name = "top",
    .words = "[ADDRESS]",
    .summary = "watch a running coordinator and its workers, live",
    .about =
        "Shows the run of the coordinator at ADDRESS and what each worker does, anew every second. Keys sort (< > or "
        "a column's letter), reverse (r), filter (/), scroll (arrows); h tells them all, q quits. Where standard "
        "output is no terminal: a line a look, and the workers that are slow.",
    .notes = "For example:\n\n"
             "  skald top node1:7700\n"
             "  skald top unix:/run/skald.sock --every 0.2s\n\n"
             "The README says what the columns mean.\n\n",
    .table = table,
    .most_words = 1,
    .run = run,
};
