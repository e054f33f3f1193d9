/* A scoring container that does nothing, as fast as one thread can: GET /ping and POST /invocations answer 200.
 *
 * The floor of bench_invoke.py. It takes well-formed HTTP/1.1 with Content-Length only, from clients that it trusts.
 * Build: gcc -O2 -static -o serve noop_server.c
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_FD 4096
#define BUFFER (64 * 1024)
#define ANSWER "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"score\":1}"

static char *buffers[MAX_FD];
static size_t held[MAX_FD];      /* header bytes that lie in the buffer */
static size_t body_left[MAX_FD]; /* body bytes still to be read and dropped */

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void forget(int fd) {
    free(buffers[fd]);
    buffers[fd] = NULL;
    held[fd] = body_left[fd] = 0;
    close(fd);
}

static size_t content_length(const char *header) {
    const char *found = strcasestr(header, "\r\ncontent-length:");
    return found ? strtoul(found + 17, NULL, 10) : 0;
}

/* Answer every request that is whole; keep the rest. Returns 0 when the connection is lost. */
static int answer(int fd) {
    char *buffer = buffers[fd];
    for (;;) {
        size_t dropped = body_left[fd] < held[fd] ? body_left[fd] : held[fd];
        if (dropped) {
            memmove(buffer, buffer + dropped, held[fd] - dropped);
            held[fd] -= dropped;
            body_left[fd] -= dropped;
            if (body_left[fd] == 0 && write(fd, ANSWER, sizeof ANSWER - 1) < 0)
                return 0;
        }
        if (body_left[fd] || held[fd] == 0)
            return 1;
        buffer[held[fd]] = 0;
        char *end = strstr(buffer, "\r\n\r\n");
        if (!end)
            return held[fd] < BUFFER;
        size_t header_bytes = (size_t)(end + 4 - buffer), body_bytes = content_length(buffer);
        memmove(buffer, buffer + header_bytes, held[fd] - header_bytes);
        held[fd] -= header_bytes;
        body_left[fd] = body_bytes;
        if (body_bytes == 0 && write(fd, ANSWER, sizeof ANSWER - 1) < 0)
            return 0;
    }
}

static void serve(int fd) {
    ssize_t got = read(fd, buffers[fd] + held[fd], BUFFER - held[fd]);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        forget(fd);
        return;
    }
    held[fd] += (size_t)got;
    if (!answer(fd))
        forget(fd);
}

static void accept_from(int listener, int epoll) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK), one = 1;
    if (fd < 0)
        return;
    if (fd >= MAX_FD) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    buffers[fd] = malloc(BUFFER + 1);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

int main(void) {
    const char *bind_to = getenv("SAGEMAKER_BIND_TO_PORT");
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(bind_to ? atoi(bind_to) : 8080)};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), epoll = epoll_create1(0), one = 1;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, _exit);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024))
        die("noop_server cannot listen");
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, ready[64];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(epoll, ready, 64, -1);
        for (int i = 0; i < count; i++) {
            if (ready[i].data.fd == listener)
                accept_from(listener, epoll);
            else
                serve(ready[i].data.fd);
        }
    }
}
