#include "cli/children.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"

extern char **environ;

static void error_path(const children *c, int k, char *out, size_t size) {
    snprintf(out, size, "%s/worker-%d.err", c->folder, k + 1);
}

static skald_status make_folder(children *c) {
    const char *temporary = getenv("TMPDIR");
    /* a unix socket's path has room for 107 characters */
    if (!temporary || temporary[0] != '/' || strlen(temporary) > 70) temporary = "/tmp";
    snprintf(c->folder, sizeof c->folder, "%.70s/skald-XXXXXX", temporary);
    if (!mkdtemp(c->folder)) {
        c->folder[0] = '\0';
        return skald_fail(SKALD_EIO, "%s: cannot make a folder for the run: %s", temporary, strerror(errno));
    }
    return SKALD_OK;
}

/* The environment without options: the parent's settings are not the workers'. Points into environ. */
static char **worker_environment(void) {
    size_t count = 0, used = 0;
    while (environ[count]) count++;
    char **out = calloc(count + 1, sizeof *out);
    for (size_t i = 0; out && i < count; i++)
        if (strncmp(environ[i], "SKALD_", 6) != 0 || arguments_is_library_variable(environ[i]))
            out[used++] = environ[i];
    return out;
}

static skald_status start_one(children *c, int k, const settings *s, const char *device, char **environment) {
    static const char *const storage[] = {"auto", "f32", "bf16", "u8"}, *const resident[] = {"auto", "device", "host"};
    char name[32], threads[16], parent[16], errors[160];
    snprintf(name, sizeof name, "worker-%d", k + 1);
    snprintf(threads, sizeof threads, "%d", (int)s->threads);
    snprintf(parent, sizeof parent, "%d", (int)getpid());
    error_path(c, k, errors, sizeof errors);
    /* clang-format off */
    const char *argv[] = {"skald", "worker", "--connect", "fd:3", "--name", name, "--threads", threads,
                          "--device", device, "--storage", storage[s->storage],
                          "--resident", resident[s->resident],
                          s->deterministic ? "--deterministic=yes" : "--deterministic=no",
                          "--wait", "60s", "--quiet", "--parent", parent, s->isa ? "--isa" : NULL, s->isa, NULL};
    /* clang-format on */
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return skald_fail(SKALD_EIO, "cannot start worker %d: %s", k + 1, strerror(errno));
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    int error = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    if (!error) error = posix_spawn_file_actions_addopen(&actions, 2, errors, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (!error) error = posix_spawn_file_actions_adddup2(&actions, 2, 1);
    if (!error) error = posix_spawn_file_actions_adddup2(&actions, ends[0], 3);
    if (!error)
        error =
            posix_spawn(&c->list[k].pid, "/proc/self/exe", &actions, NULL, (char *const *)(uintptr_t)argv, environment);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[0]);
    if (error) {
        close(ends[1]);
        c->list[k].pid = 0;
        return skald_fail(SKALD_EIO, "cannot start worker %d: %s", k + 1, strerror(error));
    }
    c->list[k].telling = ends[1];
    return SKALD_OK;
}

skald_status children_start(children *c, int count, const settings *s, const skald_device *cards, uint32_t card_count) {
    *c = (children){0};
    TRY(make_folder(c));
    c->list = calloc((size_t)count, sizeof *c->list);
    char **environment = worker_environment();
    skald_status st = c->list && environment ? SKALD_OK : skald_fail(SKALD_ENOMEM, "out of memory");
    for (int k = 0; st == SKALD_OK && k < count; k++) {
        c->list[k].telling = -1;
        c->count = k + 1;
        st = start_one(c, k, s, card_count > 1 ? cards[(uint32_t)k % card_count].spec : s->device, environment);
    }
    free(environment);
    if (st != SKALD_OK) children_end(c);
    return st;
}

void children_tell(children *c, const char *address) {
    for (int k = 0; k < c->count; k++) {
        if (c->list[k].telling < 0) continue;
        /* a pipe takes that much at once; a child that has died is noticed elsewhere */
        if (write(c->list[k].telling, address, strlen(address)) < 0 && errno != EPIPE) continue;
        close(c->list[k].telling);
        c->list[k].telling = -1;
    }
}

static void reap(children *c) {
    for (int k = 0; k < c->count; k++)
        if (c->list[k].pid > 0 && waitpid(c->list[k].pid, &c->list[k].how, WNOHANG) == c->list[k].pid)
            c->list[k].pid = 0;
}

/* The last line that is not empty, without its newline. */
static void last_line(const char *path, char *out, size_t size) {
    char line[512];
    out[0] = '\0';
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0]) snprintf(out, size, "%s", line);
    }
    if (file) fclose(file);
}

static int first_dead(children *c) {
    reap(c);
    for (int k = 0; k < c->count; k++)
        if (c->list[k].pid == 0) return k;
    return -1;
}

bool children_find_dead(children *c, char *out, size_t size) {
    int k = first_dead(c);
    for (int waited_ms = 0; k < 0 && waited_ms < 500; waited_ms += 2) {
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
        k = first_dead(c);
    }
    if (k < 0) return false;
    char path[160], words[512], how[80];
    int status = c->list[k].how;
    error_path(c, k, path, sizeof path);
    last_line(path, words, sizeof words);
    if (WIFSIGNALED(status))
        snprintf(how, sizeof how, "was killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(how, sizeof how, "ended with exit code %d", WEXITSTATUS(status));
    snprintf(out, size, "worker-%d %s%s%s", k + 1, how, words[0] ? ": " : "", words);
    return true;
}

static bool any_left(children *c) {
    reap(c);
    for (int k = 0; k < c->count; k++)
        if (c->list[k].pid > 0) return true;
    return false;
}

static void remove_folder(const char *folder) {
    DIR *directory = opendir(folder);
    for (struct dirent *entry; directory && (entry = readdir(directory));)
        if (entry->d_name[0] != '.') unlinkat(dirfd(directory), entry->d_name, 0);
    if (directory) closedir(directory);
    rmdir(folder);
}

void children_end(children *c) {
    /* whoever still waits for an address reads the end of the pipe, and ends */
    for (int k = 0; k < c->count; k++)
        if (c->list[k].telling >= 0) close(c->list[k].telling);
    for (int waited_ms = 0; waited_ms < 3000 && any_left(c); waited_ms += 2)
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    for (int k = 0; k < c->count; k++)
        if (c->list[k].pid > 0) {
            kill(c->list[k].pid, SIGKILL);
            waitpid(c->list[k].pid, NULL, 0);
        }
    free(c->list);
    if (c->folder[0]) remove_folder(c->folder);
    *c = (children){0};
}
