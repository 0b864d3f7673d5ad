// The engine of bench/peers: one thread that answers every chat request the same, at next to no cost.
//
//   upstream PORT INTERVAL_MS
//
// A request with "stream":true gets max_tokens (or max_completion_tokens) events, each a write of its own, the first at once and the others INTERVAL_MS
// apart. Requests come one after the other on a connection. GET gets a list of models, which gateways ask for to see whether an engine lives.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define START "{\"id\":\"chatcmpl-0123456789abcdef0123456789abcdef\",\"object\":\"chat.completion"
#define USAGE "\"usage\":{\"prompt_tokens\":200,\"completion_tokens\":5,\"total_tokens\":205}"

static const char models[] = "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\",\"created\":1763700000,\"owned_by\":\"bench\"}]}";
static const char answer[] = START "\",\"created\":1763700000,\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
                                   "\"content\":\"An answer of five tokens.\"},\"logprobs\":null,\"finish_reason\":\"stop\"}]," USAGE "}";
static const char word[] = "data: " START ".chunk\",\"created\":1763700000,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},"
                           "\"logprobs\":null,\"finish_reason\":null}]}\n\n";
static const char last[] = "data: " START ".chunk\",\"created\":1763700000,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},"
                           "\"logprobs\":null,\"finish_reason\":\"stop\"}]," USAGE "}\n\ndata: [DONE]\n\n";

struct connection {
    int fd;  // -1: closed, and still among the streams
    size_t filled;
    long events;  // of its stream, still to come
    int64_t due;
    struct connection *next;
    char request[1 << 17];
};

// Streams, the one that is due first in front: all wait for the same time.
static struct connection *first, **end = &first;
static int64_t interval;

static int64_t now_ms(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

// What is sent fits into the socket's buffer. A peer that has gone is noticed when it is read from.
static void send_all(int fd, const char *data, size_t size)
{
    if (send(fd, data, size, MSG_NOSIGNAL) < 0) {
        shutdown(fd, SHUT_RDWR);
    }
}

static void send_chunk(int fd, const char *data, size_t size)
{
    char chunk[2048];
    send_all(fd, chunk, (size_t) snprintf(chunk, sizeof(chunk), "%zx\r\n%.*s\r\n", size, (int) size, data));
}

static void send_json(int fd, const char *data, size_t size)
{
    char whole[2048];
    send_all(fd, whole, (size_t) snprintf(whole, sizeof(whole), "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", size, data));
}

// Sends one event, and the end after the last.
static void step(struct connection *of)
{
    if (of->events > 0) {
        send_chunk(of->fd, word, sizeof(word) - 1);
        of->events--;
        of->due = now_ms() + interval;
        of->next = NULL;
        *end = of;
        end = &of->next;
        return;
    }
    send_chunk(of->fd, last, sizeof(last) - 1);
    send_all(of->fd, "0\r\n\r\n", 5);
}

// What follows a key of JSON, blanks skipped; "" where the key is not.
static const char *value_of(const char *body, const char *key)
{
    const char *at = strstr(body, key);
    return at != NULL ? at + strlen(key) + strspn(at + strlen(key), " :") : "";
}

// Whether the request in the buffer has come to its end.
static bool complete(const struct connection *of, const char *body)
{
    const char *length = strcasestr(of->request, "\r\ncontent-length:");
    if (length != NULL && length < body) {
        return of->filled - (size_t) (body - of->request) >= strtoul(length + 17, NULL, 10);
    }
    const char *chunked = strcasestr(of->request, "\r\ntransfer-encoding: chunked");
    return chunked == NULL || chunked > body || memcmp(of->request + of->filled - 5, "0\r\n\r\n", 5) == 0;
}

static void received(struct connection *of)
{
    of->request[of->filled] = 0;
    const char *head_end = strstr(of->request, "\r\n\r\n");
    if (head_end == NULL || !complete(of, head_end + 4)) {
        return;
    }
    of->filled = 0;
    if (strncmp(of->request, "GET ", 4) == 0) {
        send_json(of->fd, models, sizeof(models) - 1);
    } else if (*value_of(head_end, "\"stream\"") == 't') {
        static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        send_all(of->fd, head, sizeof(head) - 1);
        of->events = strtol(value_of(head_end, "_tokens\""), NULL, 10);
        step(of);
    } else {
        send_json(of->fd, answer, sizeof(answer) - 1);
    }
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: upstream PORT INTERVAL_MS\n");
        return 2;
    }
    interval = atol(argv[2]);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t) atoi(argv[1])), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int on = 1;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(listener, (struct sockaddr *) &address, sizeof(address)) != 0 || listen(listener, 1024) != 0) {
        fail("listen");
    }
    int events = epoll_create1(0);
    epoll_ctl(events, EPOLL_CTL_ADD, listener, &(struct epoll_event){.events = EPOLLIN});
    for (;;) {
        struct epoll_event ready[64];
        int64_t wait = first == NULL ? -1 : first->due > now_ms() ? first->due - now_ms() : 0;
        int count = epoll_wait(events, ready, 64, (int) wait);
        for (int number = 0; number < count; number++) {
            struct connection *of = ready[number].data.ptr;
            if (of == NULL) {
                of = calloc(1, sizeof(*of));
                if (of == NULL || (of->fd = accept(listener, NULL, NULL)) < 0) {
                    fail("accept");
                }
                setsockopt(of->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
                epoll_ctl(events, EPOLL_CTL_ADD, of->fd, &(struct epoll_event){.events = EPOLLIN, .data.ptr = of});
                continue;
            }
            ssize_t size = recv(of->fd, of->request + of->filled, sizeof(of->request) - 1 - of->filled, MSG_DONTWAIT);
            if (size > 0) {
                of->filled += (size_t) size;
                received(of);
                continue;
            }
            close(of->fd);
            of->fd = -1;
            if (of->due == 0) {
                free(of);
            }
        }
        while (first != NULL && first->due <= now_ms()) {
            struct connection *of = first;
            first = of->next;
            if (first == NULL) {
                end = &first;
            }
            of->due = 0;
            if (of->fd >= 0) {
                step(of);
            } else {
                free(of);
            }
        }
    }
}
