// Preloaded into nginx by run.py: the thread CPU that one turn of the event loop uses, from the return of epoll_wait() to its next call.
// A turn runs one handler or more, so its longest is an upper bound of the longest handler run. Each worker keeps its figures in a
// file of its own, $LOOP_TIME.PID, mapped: longest turn in ns, turns, turns above 5 ms.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct figures { uint64_t longest_ns, turns, above_5ms; };

static char prefix[400];

// nginx's workers lose the environment: it is read while the program is loaded.
__attribute__((constructor)) static void read_environment(void)
{
    const char *value = getenv("LOOP_TIME");
    snprintf(prefix, sizeof(prefix), "%s", value != NULL ? value : "/tmp/loop");
}

static struct figures *figures_of_this_process(void)
{
    static struct figures *mine;
    static pid_t owner;
    if (owner == getpid()) {
        return mine;
    }
    char path[512];
    snprintf(path, sizeof(path), "%s.%d", prefix, (int) getpid());
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || ftruncate(fd, sizeof(struct figures)) != 0) {
        abort();
    }
    mine = mmap(NULL, sizeof(struct figures), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    owner = getpid();
    return mine;
}

static uint64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t) now.tv_sec * 1000000000u + (uint64_t) now.tv_nsec;
}

int epoll_wait(int epfd, struct epoll_event *events, int maxevents, int timeout)
{
    static int (*real)(int, struct epoll_event *, int, int);
    static uint64_t began;
    static pid_t began_in;
    struct figures *figures = figures_of_this_process();
    if (real == NULL) {
        real = (int (*)(int, struct epoll_event *, int, int)) dlsym(RTLD_NEXT, "epoll_wait");
    }
    if (began_in == getpid()) {  // not the start of a worker: reading its configuration is no handler run
        uint64_t used = cpu_ns() - began;
        figures->turns++;
        figures->above_5ms += used > 5000000u;
        if (used > figures->longest_ns) {
            figures->longest_ns = used;
        }
    }
    int ready = real(epfd, events, maxevents, timeout);
    began = cpu_ns();
    began_in = getpid();
    return ready;
}
